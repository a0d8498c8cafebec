"""Real shapes that are measured with random weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a generator; ``layers`` and ``heads`` are of the encoder and the decoder each."""

    d_model: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int
    model_type: str = "bart"


SHAPES = {
    "worldfacts": Shape(256, 3, 4, 1024, 6000, 320),
    "bart-base": Shape(768, 6, 12, 3072, 50265, 1024),
    "bart-large": Shape(1024, 12, 16, 4096, 50265, 1024),
    "t5-base": Shape(768, 12, 12, 3072, 32128, 512, "t5"),
    "t5-large": Shape(1024, 24, 16, 4096, 32128, 512, "t5"),
    "mbart-large": Shape(1024, 12, 16, 4096, 250027, 1024, "mbart"),
    # to try the command, and for its tests: all sizes differ
    "tiny": Shape(32, 3, 2, 48, 60, 64),
    "tiny-t5": Shape(32, 3, 2, 48, 60, 64, "t5"),
    "tiny-mbart": Shape(32, 3, 2, 48, 60, 64, "mbart"),
}
