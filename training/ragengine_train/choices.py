"""What a training may be asked for; imports nothing that the command line's help would have to wait for."""

from typing import Literal, TypeAlias, get_args

ResultName: TypeAlias = Literal["encoders", "generator", "index", "joint", "checkpoint"]
RESULTS: tuple[ResultName, ...] = get_args(ResultName)
"""The results of a run in the order in which they are made; the index depends on the passage encoder."""
