"""examples/paper: every public format is read and every command runs, worldfacts in place of Wikipedia."""

import csv
import gzip
import io
import json
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import PassagesError
from ragengine.evaluation import read_questions
from tests.support.paths import ROOT

PAPER = ROOT / "examples" / "paper"
WORLDFACTS = ROOT / "examples" / "worldfacts"
CONFIG: dict[str, Any] = tomllib.loads((PAPER / "tasks.toml").read_text("utf-8"))

ICELAND, JAPAN = "What is the capital of Iceland?", 'What is the "currency" of Japan?'


def tab_separated(*rows: tuple[str, list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows((question, repr(answers)) for question, answers in rows)
    return text.getvalue()


def json_lines(*entries: dict[str, Any]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def trivia(question: str, value: str, *aliases: str) -> dict[str, Any]:
    answer = {
        "Value": value,
        "Aliases": list(aliases),
        "NormalizedAliases": [value.lower()],
        "Type": "Entity",
    }
    return {"Question": question, "QuestionId": "1", "Answer": answer}


TRIVIA = json.dumps({"Data": [trivia(ICELAND, "Reykjavik", "Reykjavik", "Reykjavík")], "Split": "dev"})
WEB = json.dumps(
    [
        {"url": "x", "utterance": ICELAND, "targetValue": '(list (description "Reykjavík (city)"))'},
        {"utterance": JAPAN, "targetValue": '(list (description Yen) (description "the \\"Yen\\""))'},
    ]
)
MARCO = json.dumps(
    {
        "query": {"0": ICELAND, "1": "unanswered", "2": JAPAN},
        "query_type": {"0": "LOCATION", "1": "ENTITY", "2": "ENTITY"},
        "answers": {"0": ["Reykjavik"], "1": ["No Answer Present."], "2": ["Yen"]},
        "wellFormedAnswers": {
            "0": ["The capital is Reykjavik.", "It is Reykjavik."],
            "1": "[]",
            "2": ["Yen."],
        },
    }
)
JEOPARDY = "<s> snippets </s> ||| capital of iceland ||| reykjavik\n" + json_lines(
    {"category": "CASH", "question": "'The currency of Japan'", "answer": "Yen", "round": "Jeopardy!"}
)
EVIDENCE = [[[1, 2, "Reykjavik_-LRB-city-RRB-", 0]], [[1, 2, "Iceland", 3], [1, 2, "Iceland", 4]]]
FEVER = json_lines(
    {"id": 1, "claim": "Reykjavik is in Iceland.", "label": "SUPPORTS", "evidence": EVIDENCE},
    {"id": 2, "claim": "Oslo sleeps.", "label": "NOT ENOUGH INFO", "evidence": [[[1, None, None, None]]]},
    {
        "id": "3",
        "input": "Tokyo is in Iceland.",
        "output": [{"answer": "REFUTES", "provenance": [{"title": "Tokyo"}]}],
    },
)
FILES = {
    "qas": tab_separated((ICELAND, ["Reykjavik", "Reykjavík"]), (JAPAN, ["Yen"])),
    "qas-regex": tab_separated((ICELAND, [r"Reykjav(i|í)k"]), (JAPAN, ["[Yy]en"])),
    "jsonl": json_lines(
        {"question": ICELAND, "answer": ["Reykjavik"]}, {"question": JAPAN, "answer": ["Yen"]}
    ),
    "jsonl-regex": json_lines({"question": ICELAND, "answer": ["Reyk.*"]}),
    "triviaqa": TRIVIA,
    "webquestions": WEB,
    "msmarco": MARCO,
    "jeopardy": JEOPARDY,
    "fever": FEVER,
}
# by default each task once, so that each kind of decoding is run both ways; -m slow runs the others
OFTEN = {
    "nq": "token",
    "triviaqa": "sequence",
    "webquestions": "token",
    "curatedtrec": "sequence",
    "msmarco": "token",
    "jeopardy": "sequence",
    "fever3": "token",
    "fever2": "sequence",
}
COMMANDS = [
    pytest.param(task, model, marks=[] if OFTEN.get(task) == model else [pytest.mark.slow])
    for task in CONFIG["tasks"]
    for model in ("token", "sequence")
]


def run(task: str, data: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PAPER / "run.py"), task, str(data), "--output", str(folder)]
    worldfacts = ["--bundle", str(WORLDFACTS / "bundle"), "--index", str(WORLDFACTS / "index")]
    fast = ["--verify", "size", "--threads", "1", "--device", "cpu", "--resamples", "10"]
    return subprocess.run(
        [*command, *worldfacts, *options, *fast], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("task", "model"), COMMANDS)
def test_every_command_of_the_paper_runs(task: str, model: str, tmp_path: Path) -> None:
    settings = CONFIG["tasks"][task]
    data = tmp_path / "data"
    data.write_text(FILES[settings["format"]], "utf-8")
    done = run(task, data, tmp_path / "results", "--model", model)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / f"{task}-{model}.json").read_text("utf-8"))
    assert result["n"] == len(read_questions(tmp_path / "results" / f"{task}.questions.jsonl")) > 0
    for name, reported in settings["paper"][model].items():
        assert f"{name:15} paper {reported:5.1f}   here {100 * result[name]:5.1f}" in done.stdout
    decoding = CONFIG["decoding"][settings["decoding"]][model]
    assert f"--marginalize {model} --n-docs {decoding['n_docs']}" in done.stderr
    assert f"precision@{decoding['n_docs']}" in result


@pytest.fixture(scope="module")
def formats() -> Any:
    return loaded("formats")


def loaded(name: str) -> Any:
    """A module of examples/paper, which is no package."""
    spec = spec_from_file_location(f"paper_{name}", PAPER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXPECTED = {
    "qas": [(ICELAND, ["Reykjavik", "Reykjavík"]), (JAPAN, ["Yen"])],
    "qas-regex": [(ICELAND, ["Reykjav(i|í)k"]), (JAPAN, ["[Yy]en"])],
    "jsonl": [(ICELAND, ["Reykjavik"]), (JAPAN, ["Yen"])],
    "jsonl-regex": [(ICELAND, ["Reyk.*"])],
    "triviaqa": [(ICELAND, ["Reykjavik", "Reykjavík"])],
    "webquestions": [(ICELAND, ["Reykjavík (city)"]), (JAPAN, ["Yen", 'the "Yen"'])],
    "msmarco": [(ICELAND, ["The capital is Reykjavik.", "It is Reykjavik."]), (JAPAN, ["Yen."])],
    "jeopardy": [("reykjavik", ["capital of iceland"]), ("Yen", ["'The currency of Japan'"])],
    "fever": [
        ("Reykjavik is in Iceland.", ["SUPPORTS"]),
        ("Oslo sleeps.", ["NOT ENOUGH INFO"]),
        ("Tokyo is in Iceland.", ["REFUTES"]),
    ],
}


@pytest.mark.parametrize("name", FILES)
def test_a_public_format_is_read(name: str, formats: Any, tmp_path: Path) -> None:
    plain, packed = tmp_path / "data", tmp_path / "data.gz"
    plain.write_text(FILES[name], "utf-8")
    packed.write_bytes(gzip.compress(FILES[name].encode("utf-8")))
    lines = list(formats.convert(plain, name))
    assert [(line["question"], line["answers"]) for line in lines] == EXPECTED[name]
    assert lines == list(formats.convert(packed, name))
    assert all(line.get("regex", False) == name.endswith("regex") for line in lines)


def test_fever_has_its_pages_and_the_labels_of_the_task(formats: Any, tmp_path: Path) -> None:
    path = tmp_path / "fever.jsonl"
    path.write_text(FEVER, "utf-8")
    lines = list(formats.convert(path, "fever", {"SUPPORTS": " yes", "REFUTES": " no"}))
    assert [line["answers"] for line in lines] == [[" yes"], [" no"]]
    assert [line["titles"] for line in lines] == [["Reykjavik (city)", "Iceland"], ["Tokyo"]]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ['{"nothing": []}\n', "no data", '[{"utterance": 1}]', "a\t1\n"])
def test_a_file_of_another_format_is_refused(name: str, content: str, formats: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text(content, "utf-8")
    said = rf"data: the record after question 0 is not of the format {name} "
    with pytest.raises(PassagesError, match=said):
        list(formats.convert(data, name))


def test_a_question_without_an_answer_is_no_unanswerable_one(formats: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    entry = {"utterance": JAPAN, "targetValue": "(list (value 1))"}
    data.write_text(json.dumps([*json.loads(WEB)[:1], entry]), "utf-8")
    said = r"the record after question 1 is not .*\[\] is not a list of texts"
    with pytest.raises(PassagesError, match=said):
        list(formats.convert(data, "webquestions"))


def test_a_figure_of_no_question_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(PAPER)
    loaded("run").show(CONFIG["tasks"]["msmarco"], "token", {"n": 0, "exact_match": None})
    assert "rouge_l         paper  40.1   here no answerable question" in capsys.readouterr().out


def test_a_trial_leaves_the_figures_of_all_questions_alone(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.write_text(FILES["qas"], "utf-8")
    results.mkdir()
    whole = [results / "nq-token.json", results / "nq.questions.jsonl"]
    for path in whole:
        path.write_text("of all questions")
    done = run("nq", data, results, "--model", "token", "--limit", "1")
    assert done.returncode == 0, done.stderr
    assert [path.read_text() for path in whole] == ["of all questions"] * 2
    assert json.loads((results / "nq-token-first-1.json").read_text("utf-8"))["n"] == 1
    assert len(read_questions(results / "nq-first-1.questions.jsonl")) == 1


def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text(FILES["qas"], "utf-8")
    for task, file in (("msmarco", data), ("nq", tmp_path / "nowhere")):
        done = run(task, file, tmp_path / "results", "--model", "token")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
