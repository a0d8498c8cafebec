"""Ragengine on a Ray cluster; everything that imports ray is here."""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_ray.answering import Answerer
    from ragengine_ray.training import train

__all__ = ["Answerer", "train"]

_MODULES = {"Answerer": "answering", "train": "training"}

__getattr__, __dir__ = lazy_names(__name__, _MODULES, "Running on Ray needs", "ray")
