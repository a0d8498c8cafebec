"""No connection, no new process, no unpickling, and no file but the requested output.

Each program runs in a sealed process (sealed.py) with an empty environment: no HOME or an empty one, and
no CI, because onnxruntime's telemetry is off where CI is set.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.robustness import sealed
from tests.support.paths import ROOT

WORLDFACTS = ROOT / "examples" / "worldfacts"

ANSWER = """
import sys
from ragengine import Document, RagEngine

bundle, index = sys.argv[1:]
with RagEngine.load(bundle, index=index, device="cpu", threads=1) as engine:
    question = "What is the capital of Iceland?"
    assert engine.generate(question, num_beams=2).text.strip() == "Reykjavik"
    assert engine.generate([question] * 2, marginalize="sequence", num_beams=2)[1].text.strip() == "Reykjavik"
    assert "".join(token.text for token in engine.stream(question, num_beams=1)).strip() == "Reykjavik"
    assert engine.retrieve(question)[0].title == "Iceland"
    assert engine.generate(question, documents=[Document("Iceland", "The capital is Oslo.", score=1.0)])
    assert engine.score(question, " Reykjavik") > engine.score(question, " Oslo")
    engine.swap_index(index, verify="size")
    assert engine.generate(question, num_beams=1, do_sample=True, seed=1).text
"""

COMMANDS = """
import sys
from ragengine.cli.main import cli

bundle, index, questions = sys.argv[1:]
for arguments in (
    ["ask", bundle, index, "What is the capital of Iceland?", "--explain", "--threads", "1"],
    ["eval", bundle, index, questions, "--json", "--threads", "1"],
    ["index", "info", index],
    ["index", "verify", index],
):
    cli.main(arguments, prog_name="ragengine", standalone_mode=False)
"""

BUILD = """
import sys
from ragengine.cli.main import cli

bundle, passages, index = sys.argv[1:]
cli.main(
    ["index", "build", passages, index, "--bundle", bundle, "--threads", "1"],
    prog_name="ragengine", standalone_mode=False,
)
cli.main(["ask", bundle, index, "What is the capital of Iceland?", "--json"], standalone_mode=False)
"""

REACH_OUT = {
    "socket": "import ctypes; ctypes.CDLL(None).socket(2, 1, 0)",
    "program": "import ctypes; ctypes.CDLL(None).system(b'true')",
    "process": "import os; os.fork()",
    "file": "open('new', 'wb').write(b'x')",
}


def run_sealed(
    folder: Path, program: str, *arguments: object, writes: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a sealed process, in an empty read-only folder, with only ``variables`` set."""
    for name in ("cwd", "tmp"):
        (folder / name).mkdir()
    (folder / "cwd").chmod(0o555)
    (folder / "program.py").write_text(program, "utf-8")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        **({} if writes else {"SEALED_WRITES": "forbidden"}),
        **variables,
    }
    strict = ("-X", "dev", "-W", "error")  # Python reports a file left open on stderr
    module = ("-m", "tests.robustness.sealed", folder / "program.py")
    command = [sys.executable, *strict, *module, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=folder / "cwd", capture_output=True, text=True, check=False, timeout=120
    )


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "program.py"}


@pytest.mark.skipif(not sealed.SUPPORTED, reason="no seccomp filter for this machine")
@pytest.mark.parametrize("deed", REACH_OUT)
def test_the_seal_holds(tmp_path: Path, deed: str) -> None:
    done = run_sealed(tmp_path, REACH_OUT[deed])
    assert done.returncode == -(signal.SIGXFSZ if deed == "file" else signal.SIGSYS)


def test_the_seal_hears_python(tmp_path: Path) -> None:
    program = "import pickle, os; pickle.loads(pickle.dumps(os.getcwd)); open(os.devnull, 'w')"
    done = run_sealed(tmp_path, program)
    assert [event.split()[0] for event in json.loads(done.stdout)] == ["pickle.find_class", "open"]


@pytest.mark.parametrize("home", ["none", "empty"])
def test_answering_reaches_for_nothing_writes_nothing_and_warns_of_nothing(tmp_path: Path, home: str) -> None:
    (tmp_path / "home").mkdir()
    variables = {"HOME": str(tmp_path / "home")} if home == "empty" else {}
    done = run_sealed(tmp_path, ANSWER, WORLDFACTS / "bundle", WORLDFACTS / "index", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert files_under(tmp_path) == {"cwd", "home", "tmp"}


def test_the_commands_reach_for_nothing_and_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    questions = (WORLDFACTS / "questions.jsonl").read_text("utf-8").splitlines()[:2]
    (tmp_path / "questions.jsonl").write_text("\n".join(questions), "utf-8")
    arguments = (WORLDFACTS / "bundle", WORLDFACTS / "index", tmp_path / "questions.jsonl")
    done = run_sealed(tmp_path, COMMANDS, *arguments, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "Reykjavik" in done.stdout
    assert "is whole" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert files_under(tmp_path) == {"cwd", "home", "tmp", "questions.jsonl"}


def test_building_an_index_writes_the_index_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "target").mkdir()
    passage = {"id": "1", "title": "Iceland", "text": "Iceland is in Europe. Its capital is Reykjavik."}
    (tmp_path / "passages.jsonl").write_text(json.dumps(passage) + "\n", "utf-8")
    arguments = (WORLDFACTS / "bundle", tmp_path / "passages.jsonl", tmp_path / "target" / "index")
    done = run_sealed(tmp_path, BUILD, *arguments, writes=True, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert '"answer"' in done.stdout
    unpacked = ("os.remove", "os.rmdir")  # shutil.rmtree names files relative to a file descriptor
    reached = [e for e in json.loads(done.stdout.splitlines()[-1]) if not e.startswith(unpacked)]
    assert [event for event in reached if str(tmp_path / "target") not in event] == []
    names = ("index.faiss", "manifest.json", "passages.sqlite", "vectors.npy")
    written = {"target", "target/index", *(f"target/index/{name}" for name in names)}
    assert files_under(tmp_path) == {"cwd", "home", "tmp", "passages.jsonl", *written}
