"""Modules under the names that a checkpoint gives them."""

from typing import Any

from onnxscript import nn

from ragengine_export.graphs.layers import Op


class Namespace(nn.Module):
    """A tree of modules with dotted names: calling it with a name calls that module."""

    def add(self, name: str, module: nn.Module) -> None:
        """Put ``module`` in at ``name``, such as ``model.decoder.layers.0.encoder_attn.k_proj``."""
        first, _, rest = name.partition(".")
        if not rest:
            setattr(self, first, module)
            return
        if first not in dict(self.named_children()):
            setattr(self, first, Namespace())
        getattr(self, first).add(rest, module)

    def forward(self, op: Op, name: str, *arguments: Any) -> Any:
        first, _, rest = name.partition(".")
        child = getattr(self, first)
        return child(op, rest, *arguments) if rest else child(op, *arguments)


class Named(Namespace):
    """One module under its dotted name."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self._path = name
        self.add(name, module)

    def forward(self, op: Op, *arguments: Any) -> Any:
        return super().forward(op, self._path, *arguments)
