"""Fuzz the command line with its own grammar: any words end in an answer or in a sentence.

    python -m tests.fuzz.command_lines [--seconds S | --cases N] [--seed TEXT] [--first N]

Each case runs in a fork.  A signal, a traceback, a control character, an unknown exit code, or much more time
than an honest case needs is a failure; the seed and its number, which are printed, repeat it.
"""

import argparse
import contextlib
import faulthandler
import importlib
import json
import os
import resource
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from ragengine.cli.main import main as command_line
from tests.fuzz.grammar import Case, case_of
from tests.support.bundles import random_vectors
from tests.support.paths import GOLDEN

SECONDS: Final = 120
MEMORY: Final = 4 << 30
"""Bytes of address space beside that of the libraries."""
_LIBRARIES: Final = ("ragengine_export.export", "ragengine_train.data_check")
"""Imported before the forks, so that torch counts as a library, and no case imports it anew."""
_EXIT_CODES: Final = (0, 1, 2)
_ALLOWED: Final = "\n\t"


def make_inputs(folder: Path) -> Path:
    """Small files that fit each other, under the names of the parameters that take them."""
    shutil.copytree(GOLDEN / "bundle_v4", folder / "bundle")
    shutil.copytree(GOLDEN / "index_v1", folder / "index")
    for name in ("first", "second"):
        shutil.copytree(GOLDEN / "index_v1", folder / name)
    dimension = json.loads((folder / "bundle" / "manifest.json").read_text())["question_encoder"]["dimension"]
    rows = [json.dumps({"id": f"n{row}", "title": "t", "text": f"text {row}"}) for row in range(60)]
    (folder / "passages.jsonl").write_text("\n".join(rows))
    (folder / "passages.tsv").write_text("id\ttext\ttitle\n1\ta text\ta title\n")
    (folder / "passages.md").write_text("# Title\n\nA paragraph.\n")
    (folder / "source.tsv").write_text("id\ttext\ttitle\n1\ta text\ta title\n")
    (folder / "questions.jsonl").write_text('{"question": "who?", "answers": ["text"]}\n' * 3)
    (folder / "replay.json").write_text('{"format": "ragengine-record", "format_version": 1}\n')
    np.save(folder / "embeddings.npy", random_vectors(60, dimension))
    np.save(folder / "queries.npy", random_vectors(8, dimension))
    np.save(folder / "passages.npy", np.zeros((3, 2)))
    return folder


def failure(case: Case, folder: Path) -> str | None:
    """Run a case in a fork whose current folder is ``folder``; returns what is wrong with how it ended."""
    said = folder.parent / f"{folder.name}.said"
    process = os.fork()
    if process == 0:
        _run(case, folder, said)
    ends = time.monotonic() + SECONDS
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            os.kill(process, signal.SIGABRT)  # faulthandler says where it was
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
            return f"hangs: {said.read_text(errors='replace')[-1500:]}"
        time.sleep(0.005)
    text = said.read_text("utf-8", "replace")
    if os.WIFSIGNALED(ended[1]):
        return f"{signal.Signals(os.WTERMSIG(ended[1])).name}: {text[-1500:]}"
    if os.WEXITSTATUS(ended[1]) not in _EXIT_CODES:
        return f"exit code {os.WEXITSTATUS(ended[1])}: {text[-1500:]}"
    if "Traceback (most recent call last)" in text:
        return f"a traceback: {text[-1500:]}"
    control = sorted({character for character in text if _is_control(character)})
    return f"control characters {control}: {text[-500:]!r}" if control else None


def _is_control(character: str) -> bool:
    return character not in _ALLOWED and (ord(character) < 32 or 127 <= ord(character) < 160)


def _run(case: Case, folder: Path, said: Path) -> None:
    """The child's side; does not return."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    faulthandler.enable()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    code = 70
    try:
        sys.argv = ["ragengine", *case.arguments]
        command_line()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(seed: str, numbers: range, seconds: float, scratch: Path) -> tuple[int, list[str]]:
    """Run the cases with these numbers, as long as there is time; returns how many, and their failures."""
    inputs = scratch / "inputs"
    inputs.mkdir()
    make_inputs(inputs)
    failures, done = [], 0
    ends = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > ends:
            break
        folder = scratch / "here"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case = case_of(seed, number, inputs)
        wrong = failure(case, folder)
        done += 1
        if wrong is not None:
            failures.append(f"seed {seed}, case {number}: {case.shown()}\n{wrong}")
        if wrong is not None or done % 50 == 0:  # a case may have changed them
            shutil.rmtree(inputs)
            inputs.mkdir()
            make_inputs(inputs)
    return done, failures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=10**9)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    for name in _LIBRARIES:
        importlib.import_module(name)
    numbers = range(chosen.first, chosen.first + chosen.cases)
    with tempfile.TemporaryDirectory(prefix="ragengine-fuzz-") as scratch:
        done, failures = run(chosen.seed, numbers, chosen.seconds, Path(scratch))
    print("\n\n".join(failures))
    print(f"seed {chosen.seed}: {done} command lines, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
