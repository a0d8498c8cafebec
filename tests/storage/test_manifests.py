"""A manifest that somebody else wrote: strict JSON, fields in their ranges, names that stay inside."""

import dataclasses
import json
import os
import re
import shutil
import socket
import tracemalloc
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.bundle.manifest import BundleManifest
from ragengine.errors import BundleError, IndexFolderError, RagEngineError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest
from ragengine.storage import folders, strict_json
from ragengine.storage.schema import Pattern, Range, parse
from ragengine.storage.strict_json import read_json
from tests.support.paths import GOLDEN

EMPTY = folders.FileEntry(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{\x00}\x00", "can't decode byte"),  # UTF-16
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xed\xa0\x80"}', "can't decode byte"),  # half a pair in UTF-8
        (b"[" * 100_000, "recursion"),
        (b'{"a":' * 100_000, "recursion"),
        (b"{" + b" " * strict_json.MAX_BYTES + b"}", "bytes, more than the"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    for read in (Bundle.open, PassageIndex.open):
        with pytest.raises(RagEngineError, match=f"manifest.json cannot be read: .*{message}") as caught:
            read(tmp_path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "device", "link to nothing"])
def test_a_manifest_is_a_plain_file(tmp_path: Path, kind: str) -> None:
    """A pipe would never answer, a device never end."""
    path = tmp_path / "manifest.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"link": GOLDEN / "bundle_v2" / "manifest.json", "device": Path("/dev/zero")}
        path.symlink_to(targets.get(kind, tmp_path / "nothing"))
    with pytest.raises(ValueError, match="not a plain file"):
        read_json(path)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read: it is not a plain file"):
        Bundle.open(tmp_path)


# Fields, one by one.

ABSURD = [-1, 0, 10**30, -(10**30), 1 << 63, 1e308, -0.5, True, None, "7", [], {}, "x" * 100_000]


def leaves(cls: type[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a dataclass and of those inside it, with its type."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, where = hints[field.name], f"{path}{field.name}"
        choices = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else [hint]
        nested = [choice for choice in choices if dataclasses.is_dataclass(choice)]
        if nested:
            yield from leaves(nested[0], f"{where}.")
        else:
            yield where, hint


ADDED_FIELDS = {"graph", "truncation_side", "split_special_tokens", "similarity", "prompt", "passages"}
ADDED_FIELDS |= {"position_offset", "d_model", "family", "memory", "activations"}
"""What later formats added to the specifications, with a default."""
BUNDLE_FIELDS = dict(leaves(BundleManifest))
INDEX_FIELDS = dict(leaves(IndexManifest))


def read_changed(name: str, cls: type[Any], path: str, value: Any, *, absent: bool = False) -> list[str]:
    """The errors of the golden manifest with one field changed."""
    content = json.loads((GOLDEN / name / "manifest.json").read_text("utf-8"))
    *parents, last = path.split(".")
    inner = content
    for parent in parents:
        if inner.get(parent) is None:
            inner[parent] = {}
        inner = inner[parent]
    if absent:
        inner.pop(last, None)
    else:
        inner[last] = value
    return list(parse(cls, content).errors)


def holds(hint: Any, value: Any) -> bool:
    """Whether ``value`` is one of ``hint``, said in another way than :mod:`ragengine.storage.schema` does."""
    if typing.get_origin(hint) is Annotated:
        kind, limit = typing.get_args(hint)
        if not holds(kind, value):
            return False
        if isinstance(limit, Range):
            return limit.low <= value <= limit.high
        return isinstance(limit, Pattern) and re.fullmatch(limit.expression, value) is not None
    if typing.get_origin(hint) is typing.Literal:
        return any(value is choice for choice in typing.get_args(hint))
    if hint is Any or typing.get_origin(hint) in (dict, list):
        return hint is Any or (type(value) is typing.get_origin(hint) and not value)
    if typing.get_args(hint):  # a union
        return any(holds(choice, value) for choice in typing.get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: repr(value)[:12])
def test_every_field_of_a_manifest_takes_what_it_should_and_nothing_else(value: Any) -> None:
    for name, cls, fields in (
        ("bundle_v2", BundleManifest, BUNDLE_FIELDS),
        ("index_v1", IndexManifest, INDEX_FIELDS),
    ):
        for path, hint in fields.items():
            faults = read_changed(name, cls, path, value)
            faults = [fault for fault in faults if fault.startswith(f"{path}: ")]
            assert bool(faults) != holds(hint, value), (path, value, faults)
            assert all(len(fault) < 400 for fault in faults)


def test_every_number_of_a_manifest_has_a_range() -> None:
    """Behind it no forged number makes anything overflow; a new field has to say its own."""
    fields = {path: hint for path, hint in (BUNDLE_FIELDS | INDEX_FIELDS).items() if int in numbers(hint)}
    assert fields == {}


def numbers(hint: Any) -> list[Any]:
    """The types inside a type, as far as no range is said."""
    if typing.get_origin(hint) is Annotated or not typing.get_args(hint):
        return [] if typing.get_origin(hint) is Annotated else [hint]
    return [inner for choice in typing.get_args(hint) for inner in numbers(choice)]


@pytest.mark.parametrize("name", ["bundle_v2", "index_v1"])
def test_every_field_that_is_missing_is_named(name: str) -> None:
    cls, fields = (BundleManifest, BUNDLE_FIELDS) if name == "bundle_v2" else (IndexManifest, INDEX_FIELDS)
    content = json.loads((GOLDEN / name / "manifest.json").read_text("utf-8"))
    needed = [path for path in fields if path in content or "." in path]
    optional = {"reason", "seed", "timings", *(path for path in fields if path.startswith("tuning"))}
    for path in needed:
        if path not in optional and path.rpartition(".")[2] not in ADDED_FIELDS:
            assert f"{path}: missing" in read_changed(name, cls, path, None, absent=True)


def test_all_errors_of_a_manifest_are_listed_and_no_number_is_allocated(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle"))
    content = json.loads((folder / "manifest.json").read_text("utf-8"))
    content["generator"] |= {"num_heads": 0, "vocab_size": 10**12, "max_positions": 0, "path": "../../etc"}
    content["question_encoder"] |= {"dimension": -8, "path": "", "fingerprint": "F" * 64}
    content["files"]["generator/weights.bin"]["size"] = 10**30
    content["precision"] = "fp8"
    (folder / "manifest.json").write_text(json.dumps(content))
    tracemalloc.start()
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for fault in (
        "generator.num_heads: 0 is not from 1 to 1024",
        "generator.vocab_size: 1000000000000 is not from 1 to 16777216",
        "generator.max_positions: 0 is not from 1 to",
        "generator.path: '../../etc' is not one plain name",
        "question_encoder.dimension: -8 is not from 1 to",
        "question_encoder.path: '' is not one plain name",
        "question_encoder.fingerprint: 'FFF",
        "files.generator/weights.bin.size: 1000000000000000000000000000000 is not from 0",
        "precision: 'fp8' is not one of 'fp32', 'fp16', 'int8', 'int4'",
    ):
        assert fault in str(caught.value)
    assert most < 1_000_000


# Names of files.

NAMES = ["../outside", "/etc/passwd", "a\\b", "a\0b", "", "x" * 5000, "\ud800", "sub/../../outside", "."]
NAMES += ["..", "./data", "sub/./data", "sub//data", "sub/data/", "//data", "data ", ".hidden", "a:b", "ﬁle"]
NAMES += ["data\n", "C:data", "\\\\host\\data", "sub\\..\\data", "~/data", "$HOME/data", "-data"]
NAMES += ["da\u0308ta", "/".join("abcdefghi")]
KINDS = ["pipe", "socket", "folder", "device", "link", "folder by link", "file as folder"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for inside in ("data", "sub/data"):
        (tmp_path / "folder" / inside).write_bytes(b"")
    with pytest.raises(IndexFolderError, match="is not the plain name of a file inside the folder") as caught:
        folders.check_files(tmp_path / "folder", {name: EMPTY}, IndexFolderError)
    str(caught.value).encode()  # can be printed
    folders.check_files(tmp_path / "folder", {"data": EMPTY, "sub/data": EMPTY}, IndexFolderError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_what_is_not_a_plain_file_in_plain_folders_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, verify: folders.Verify
) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for inside in (folder / "sub", outside):
        inside.mkdir(parents=True)
    (outside / "data").write_bytes(b"")
    name = "sub/data"
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # a socket's path has to be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("data")
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "link"):
        path.symlink_to("/dev/zero" if kind == "device" else outside / "data")
    elif kind == "folder by link":
        path.parent.rmdir()
        path.parent.symlink_to(outside)
    else:
        path.parent.rmdir()
        path.parent.write_bytes(b"")
    with pytest.raises(IndexFolderError, match=f"{name} (is missing|cannot be read)"):
        folders.check_files(folder, {name: EMPTY}, IndexFolderError, verify=verify)


def test_two_names_for_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Data").write_bytes(b"")
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(IndexFolderError, match="'data' and 'Data' are one file where case does not count"):
        folders.check_files(tmp_path, {"Data": EMPTY, "data": EMPTY}, IndexFolderError)


def test_a_folder_may_be_reached_by_a_link(tmp_path: Path) -> None:
    """What the user names may be anything; what the folder's maker names may not."""
    (tmp_path / "link").symlink_to(GOLDEN / "bundle_v2")
    Bundle.open(tmp_path / "link")


def test_size_and_sha256_find_what_they_say(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle"))
    weights = folder / "generator" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    Bundle.open(folder, verify="size")
    with pytest.raises(BundleError, match=r"generator/weights\.bin has another sha256"):
        Bundle.open(folder)
    weights.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=r"generator/weights\.bin has \d+ bytes instead of"):
        Bundle.open(folder, verify="size")


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bundle_v2", tmp_path / "bundle"))
    (folder / "generator" / "decoder.onnx").chmod(0)
    if os.access(folder / "generator" / "decoder.onnx", os.R_OK):
        pytest.skip("root reads everything")
    for verify in ("sha256", "size"):
        with pytest.raises(BundleError, match=r"decoder\.onnx.*Permission denied"):
            Bundle.open(folder, verify=verify)
