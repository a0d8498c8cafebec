"""A checkpoint of a stranger runs no code, names no other files, allocates no more than its weights take."""

import io
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import ExportError
from ragengine_bench.parity.pairs import Pair
from ragengine_export import export_checkpoint
from ragengine_export.loading import load_config
from tests.support.models import save_bart, save_dpr

CODE = "from pathlib import Path\nPath({mark!r}).touch()\n"


def edit(file: Path, **values: Any) -> None:
    """Change fields of a JSON file; one of a part is named part__field."""
    content = json.loads(file.read_text("utf-8"))
    for name, value in values.items():
        *parts, field = name.split("__")
        inner = content
        for part in parts:
            inner = inner[part]
        inner[field] = value
    file.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def source(pair: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair.checkpoint.source, tmp_path / "source"))


def refused(source: Path, message: str, **settings: Any) -> None:
    with pytest.raises(ExportError, match=message):
        export_checkpoint(source, source.parent / "bundle", check=False, **settings)
    assert not (source.parent / "bundle").exists()


@pytest.mark.parametrize("model_type", ["rag", "strange"])
def test_code_of_a_checkpoint_is_not_run_whatever_is_typed(
    source: Path, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = source.parent / "ran"
    (source / "own.py").write_text(CODE.format(mark=str(mark)))
    classes = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    edit(source / "config.json", model_type=model_type, auto_map=classes)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    refused(source, r"brings code of its own \(auto_map in config\.json\), which is never run")
    assert not mark.exists()


def test_code_of_a_tokenizer_is_not_run(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, folder = source.parent / "ran", source / "generator_tokenizer"
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["own.Own", "own.Own"]},
        tokenizer_class="Own",
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    refused(source, r"generator_tokenizer brings code of its own \(auto_map in tokenizer_config\.json\)")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generator__auto_map": {"AutoModel": "own.Model"}}, "brings code of its own"),
        ({"attn_implementation": "somebody/kernel"}, "names code on the hub"),
        ({"generator__decoder_layers": 10**9}, r"decoder_layers is 1000000000; at most 1024"),
        ({"question_encoder__num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; at most 1024"),
        ({"question_encoder__num_labels": 10**9}, "num_labels is 1000000000"),
        ({"generator__vocab_size": 10**9}, "vocab_size is 1000000000"),
        ({"generator__encoder_layers": 1000}, r"describes [\d,]+ weights or more"),
        ({"question_encoder__intermediate_size": 1 << 20}, "describes .* weights or more"),
        ({"generator__prefix": "\ud800"}, "half a surrogate pair in prefix"),
        ({"title_sep": "\udc00"}, "half a surrogate pair in title_sep"),
    ],
    ids=str,
)  # fmt: skip
def test_configs_that_are_refused_before_weights_are_loaded(
    source: Path, values: dict[str, Any], message: str
) -> None:
    edit(source / "config.json", **values)
    refused(source, message)


@pytest.mark.parametrize("part", ["question_encoder", "generator"])
def test_parts_that_are_joined_are_checked_too(tmp_path: Path, part: str) -> None:
    folders = {
        "question_encoder": save_dpr(tmp_path / "dpr"),
        "generator": save_bart(tmp_path / "bart"),
    }
    layers = "num_hidden_layers" if part == "question_encoder" else "encoder_layers"
    edit(folders[part] / "config.json", **{layers: 1000})
    with pytest.raises(ExportError, match=r"describes .* weights or more"):
        export_checkpoint(None, tmp_path / "bundle", check=False, **folders)


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/etc/elsewhere.safetensors", "a/b.safetensors", "..", "", 7, None]
)
def test_weights_are_read_from_the_checkpoints_own_folder(source: Path, name: Any) -> None:
    (source / "model.safetensors").rename(source.parent / "elsewhere.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"rag.generator.final_logits_bias": name}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(source, r"names the file .*; a checkpoint's files are in its own folder")


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 1}', "[" * 100_000, "{}"])
def test_a_damaged_index_of_weights_is_refused(source: Path, content: str) -> None:
    (source / "model.safetensors.index.json").write_text(content)
    refused(source, "cannot be read as an index of weights")


@pytest.mark.parametrize("value", ["512", "many", float("nan"), [], True, 0, -1])
def test_a_tokenizers_length_is_a_number(source: Path, value: Any) -> None:
    edit(source / "question_encoder_tokenizer" / "tokenizer_config.json", model_max_length=value)
    refused(source, r"has the model_max_length .*; it must be a number of tokens")


def test_an_infinite_length_is_no_limit(source: Path) -> None:
    edit(source / "question_encoder_tokenizer" / "tokenizer_config.json", model_max_length=float("inf"))
    export_checkpoint(source, source.parent / "bundle", check=False)


@pytest.mark.parametrize(
    "break_name", [lambda name: "x" * 5000, lambda name: f"{name}\0"], ids=["too long", "NUL"]
)
def test_a_source_that_cannot_be_read_is_not_the_outputs_fault(
    tmp_path: Path, break_name: Callable[[str], str]
) -> None:
    said = r"does not exist; give|is not a folder or hub name transformers can load"
    with pytest.raises(ExportError, match=said):
        export_checkpoint(break_name(str(tmp_path / "s")), tmp_path / "bundle")


def test_a_bundle_is_told_from_a_checkpoint(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is a bundle, which is exported already; ragengine unpack writes"):
        export_checkpoint(pair.bundle, tmp_path / "bundle")


def test_an_ordinary_checkpoint_passes(pair: Pair) -> None:
    assert load_config(str(pair.checkpoint.source)).model_type == "rag"


READ = (
    *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
    *("question_encoder_tokenizer/tokenizer.json", "generator_tokenizer/tokenizer_config.json"),
)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")
@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
@pytest.mark.parametrize("name", READ)
def test_what_is_no_plain_file_of_an_ordinary_size_is_refused_at_once(
    source: Path, name: str, kind: str
) -> None:
    file = source / name
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        with file.open("wb") as opened:
            opened.truncate(100 << 30)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)  # a reader that waits for the pipe ends the test
    try:
        refused(source, re.escape(str(source)))
    finally:
        signal.alarm(0)


def test_links_of_the_hubs_cache_are_followed(source: Path) -> None:
    config = source / "config.json"
    config.symlink_to(config.rename(source.parent / "blob"))
    assert load_config(str(source)).model_type == "rag"
