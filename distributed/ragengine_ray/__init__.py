"""Ragengine on a Ray cluster; everything that imports ray is here."""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_ray.answering import Answerer
    from ragengine_ray.building import build
    from ragengine_ray.serve import build_app, build_retrieval
    from ragengine_ray.training import train

__all__ = ["Answerer", "build", "build_app", "build_retrieval", "train"]

_MODULES = {
    "Answerer": "answering",
    "build": "building",
    "build_app": "serve",
    "build_retrieval": "serve",
    "train": "training",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES, "Running on Ray needs", "ray")
