"""Passages, networks, training and figures in one command: `python train.py`.

    documentation.py -> data/       passages and questions from numpy's documentation
    prepare.py       -> start/      random networks and their tokenizers
    ragengine train  -> run/        encoders, generator, joint tuning; a RAG checkpoint, its bundle and index
                     -> run_frozen/ joint tuning again with the question encoder frozen
    claims.py        -> results/    the paper's claims: a table and plots

A stopped run goes on.  `--toy FOLDER` does the same in another folder, with a few steps over 60 functions: it
shows in minutes that everything works, and learns nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

import claims
import documentation
import prepare
from ragengine_train import train

HERE = Path(__file__).parent
TOY_STEPS = {"encoders": 8, "generator": 10, "joint": 4}
TOY_FUNCTIONS = 60


def toy_recipe(recipe: str) -> str:
    """The recipe with a few steps of small batches in each stage."""
    for stage, steps in TOY_STEPS.items():
        recipe = re.sub(
            rf"(\[{stage}\].*?max_steps = )\d+", rf"\g<1>{steps}", recipe, count=1, flags=re.DOTALL
        )
    recipe = re.sub(r"(per_device_train_batch_size = )\d+", r"\g<1>4", recipe)
    return recipe.replace("refresh_negatives = [0, 120]", "refresh_negatives = [4]")


def frozen_recipe(recipe: str) -> str:
    """Joint tuning of the generator alone, from the first stages of `run/`."""
    stages = recipe.index("[encoders]"), recipe.index("[joint]")
    recipe = recipe[: stages[0]] + recipe[stages[1] :] + 'freeze = ["question_encoder.*"]\n'
    networks = (
        'question_encoder = "run/encoders/question_encoder"\ncontext_encoder = "run/encoders/context_encoder"'
    )
    recipe = recipe.replace('question_encoder = "start/question_encoder"\nshare_encoders = true', networks)
    recipe = recipe.replace('generator = "start/generator"', 'generator = "run/generator"')
    return recipe.replace('output = "run"', 'output = "run_frozen"')


@click.command(help=__doc__)
@click.option("--toy", type=click.Path(path_type=Path), help="A folder for a run of a few steps.")
def main(toy: Path | None) -> None:
    """Run every step that is not finished."""
    folder = toy or HERE
    folder.mkdir(parents=True, exist_ok=True)
    recipe = (HERE / "recipe.toml").read_text("utf-8")
    recipe = recipe if toy is None else toy_recipe(recipe)
    if not (folder / "data").exists():
        documentation.build(folder / "data", None if toy is None else TOY_FUNCTIONS)
    if not (folder / "start").exists():
        prepare.prepare(folder / "data", folder / "start")
    for name, text in (("recipe_used.toml", recipe), ("recipe_frozen.toml", frozen_recipe(recipe))):
        (folder / name).write_text(text, "utf-8")
        result = train(folder / name, progress=lambda report: click.echo(report.message))
        click.echo(f"{name}: {result.seconds:.0f} s")
    claims.write(folder)


if __name__ == "__main__":
    main()
