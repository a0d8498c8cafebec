"""Measure what more questions are worth: train on each number of them, and answer those of the test.

    python curve.py      in a folder where the tutorial was followed, with start/ and the .jsonl files

prints a line for each: questions written by hand, changed copies of each, seconds of training, exact match
and the share of questions whose passage is among the first five.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from passages import read, write

from ragengine_train import train

HERE = Path(__file__).parent
POINTS = ((50, 0, 60), (150, 0, 60), (150, 3, 150), (150, 120, 300))
"""Questions, copies of each (150 with three copies are 600 lines), and steps of the generator."""


def lines_of(count: int, copies: int) -> list[str]:
    """The files that a point is trained on: ``count`` questions drawn at random, and copies of them."""
    asked = read(Path("train.jsonl"))
    chosen = random.Random(1).sample(asked, count) if count < len(asked) else asked
    files = [f"train-{count}.jsonl", f"copies-{count}-{copies}.jsonl"]
    write(Path(files[0]), chosen)
    if not copies:
        return files[:1]
    command = [sys.executable, str(HERE / "variants.py"), files[0], str(copies)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    Path(files[1]).write_text(done.stdout, "utf-8")
    return files


def main() -> None:
    """Train and measure every point."""
    settings = Path("train.toml").read_text("utf-8")
    for count, copies, steps in POINTS:
        name = f"curve-{count}-{copies}"
        files = json.dumps(lines_of(count, copies))
        text = settings.replace('"run"', json.dumps(name)).replace('["train.jsonl", "variants.jsonl"]', files)
        text = text.replace("max_steps = 300", f"max_steps = {steps}")
        if not copies:  # whose lines name none
            text = text.replace("hard_negatives = 2", "hard_negatives = 2\nrefresh_negatives = [0]")
        Path(f"{name}.toml").write_text(text, "utf-8")
        started = time.perf_counter()
        result = train(f"{name}.toml")
        measured = result.dev["index"]["answers"]
        print(
            f"{count} questions, {copies} copies of each, {steps} steps, "
            f"{time.perf_counter() - started:.0f} s: "
            f"exact match {measured['exact_match']:.1%}, recall@5 {measured['passage_recall@5']:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
