"""Modules under the names that a checkpoint gives them."""

from typing import Any

from onnxscript import nn

from ragengine_export.graphs.values import Op


class Namespace(nn.Module):
    """A tree of modules with dotted names."""

    def add(self, name: str, module: nn.Module) -> None:
        """Put ``module`` in at ``name``, such as ``model.decoder.layers.0.encoder_attn.k_proj``."""
        first, _, rest = name.partition(".")
        if not rest:
            setattr(self, first, module)
            return
        if first not in dict(self.named_children()):
            setattr(self, first, Block())
        getattr(self, first).add(rest, module)

    def named(self, op: Op, name: str, *arguments: Any) -> Any:
        """Call the module of that name."""
        first, _, rest = name.partition(".")
        child = getattr(self, first)
        return child(op, rest, *arguments) if rest else child(op, *arguments)


class Block(Namespace):
    """A part of a tree, called by the names in it.

    A call goes through every level, so that parameters have their whole names in the graph.
    """

    def forward(self, op: Op, name: str, *arguments: Any) -> Any:
        return self.named(op, name, *arguments)


class Named(Namespace):
    """One module under its dotted name."""

    def __init__(self, path: str, module: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.add(path, module)

    def forward(self, op: Op, *arguments: Any) -> Any:
        return self.named(op, self.path, *arguments)
