"""Make the trained checkpoint the one that ships: `python release.py --run run --output checkpoint`.

Its weights are rounded to bfloat16 and stored as float16. Of a float16's 10 bits of mantissa the last 3 are
then 0, and git and pip compress the files to three quarters. What rounding changes is measured by train.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from common import read_json, write_json


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """The weight rounded to bfloat16, as float16; below 2^-14 float16 has fewer bits still."""
    return weight.to(torch.bfloat16).to(torch.float16) if weight.is_floating_point() else weight


def round_file(path: Path) -> None:
    """Round the weights of a safetensors file in place."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = {name: rounded(weight).contiguous() for name, weight in load_file(path).items()}
    for name, weight in weights.items():
        assert torch.isfinite(weight).all(), f"{name} of {path} exceeds float16"
    save_file(weights, path, metadata)


def set_dtype(path: Path) -> None:
    """Let a config.json say float16 of the whole model, as transformers does; nested configs stay."""
    write_json(path, read_json(path) | {"dtype": "float16"})


def release(source: Path, output: Path) -> None:
    """Copy a checkpoint folder to `output` with rounded weights, replacing what is there."""
    temporary = output.with_name(output.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    for path in sorted(temporary.rglob("*.safetensors")):
        round_file(path)
        set_dtype(path.with_name("config.json"))
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path), default=Path("run"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("checkpoint"), show_default=True)
def main(run: Path, output: Path) -> None:
    """Round and copy the checkpoint."""
    release(run / "checkpoint", output)


if __name__ == "__main__":
    main()
