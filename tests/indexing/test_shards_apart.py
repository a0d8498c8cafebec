"""Shards that jobs build apart are those of the index that one job builds."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine import (
    IndexManifest,
    build_shard,
    gather_shards,
    shard_index,
    train_quantizer,
    verify_index,
)
from ragengine.cli.index import index as index_command
from ragengine.errors import IndexFolderError, InputError, PassagesError, RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.sharded import gather
from ragengine.retrieval.open_index import open_index
from ragengine.retrieval.sharding.manifest import ShardsManifest
from tests.support.bundles import Array, E, random_vectors, write_bundle

COUNT = 300
FILES = ("index.faiss", "vectors.npy", "passages.sqlite")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"), E)


def write_passages(path: Path, count: int, *, ids: bool = False) -> Path:
    with path.open("w") as file:
        for number in range(count):
            line = {"title": "t", "text": f"text {number}", "metadata": {"odd": str(number % 2)}}
            file.write(json.dumps({"id": f"p{number}", **line} if ids else line) + "\n")
    return path


@pytest.fixture
def inputs(tmp_path: Path, bundle: Path) -> dict[str, object]:
    """What every job is given: passages, bundle and vectors."""
    np.save(tmp_path / "vectors.npy", random_vectors(COUNT, E))
    passages = write_passages(tmp_path / "passages.jsonl", COUNT)
    vectors = tmp_path / "vectors.npy"
    return {"passages": passages, "bundle": bundle, "embeddings": vectors, "threads": 1}


def build_apart(trained: Path, out: Path, shards: int, inputs: dict[str, object]) -> ShardsManifest:
    shutil.copytree(trained, out)  # as on several machines
    for number in reversed(range(shards)):  # in any order
        build_shard(out=out, shard=number, shards=shards, **inputs)
    return gather_shards(out, threads=1)


@pytest.mark.parametrize("factory", ["Flat", "OPQ2_4,IVF4,PQ2x4", "IVF8,Flat", "SQ8"])
def test_gathered_shards_are_those_of_the_index_built_whole(
    inputs: dict[str, object], tmp_path: Path, factory: str
) -> None:
    whole = build_index(index=tmp_path / "whole", **inputs, factory=factory, seed=3)
    train_quantizer(out=tmp_path / "trained", **inputs, factory=factory, seed=3)
    for shards in (1, 2, 3):
        gathered = build_apart(tmp_path / "trained", tmp_path / f"out{shards}", shards, inputs)
        divided = shard_index(tmp_path / "whole", tmp_path / f"divided{shards}", shards=shards, threads=1)
        assert gathered.quantizer == divided.quantizer
        assert gathered.structure == divided.structure
        for field in ("count", "dimension", "factory", "reason", "search", "recall", "max_norm", "encoder",
                      "seed", "tuning", "created_from"):  # fmt: skip
            assert getattr(gathered, field) == getattr(divided, field) == getattr(whole, field), field
        rows = [(entry.first_row, entry.count, entry.folder) for entry in gathered.shards]
        assert rows == [(entry.first_row, entry.count, entry.folder) for entry in divided.shards]
        for entry in divided.shards:
            for name in (*FILES, "numbered.npy"):
                ours, theirs = (
                    tmp_path / f"{kind}{shards}" / entry.folder / name for kind in ("out", "divided")
                )
                assert ours.read_bytes() == theirs.read_bytes(), (entry.folder, name)
        with open_index(tmp_path / "whole") as one, open_index(tmp_path / f"out{shards}") as several:
            questions = random_vectors(20, E, seed=4)
            for given in ({}, {"filter": {"odd": "1"}}):
                assert several.search_documents(questions, 6, **given) == one.search_documents(
                    questions, 6, **given
                )


def test_passages_that_jobs_encode_themselves_give_the_same_documents(tmp_path: Path, bundle: Path) -> None:
    inputs = {"passages": write_passages(tmp_path / "few.jsonl", 2), "bundle": bundle, "threads": 1}
    build_index(index=tmp_path / "whole", **inputs)
    train_quantizer(out=tmp_path / "trained", **inputs)
    manifest = build_apart(tmp_path / "trained", tmp_path / "out", 3, inputs)
    assert verify_index(tmp_path / "out").count == 2
    assert [(entry.first_row, entry.count, entry.folder) for entry in manifest.shards] == [
        (0, 0, None), (0, 1, "shard-0001"), (1, 1, "shard-0002")
    ]  # fmt: skip
    questions = random_vectors(5, E, seed=1)
    with open_index(tmp_path / "whole") as one, open_index(tmp_path / "out") as several:
        whole, divided = one.search_documents(questions, 2), several.search_documents(questions, 2)
    for ours, theirs in zip(divided, whole, strict=True):
        assert [document.id for document in ours] == [document.id for document in theirs]
        np.testing.assert_allclose([d.score for d in ours], [d.score for d in theirs], rtol=1e-3)


def test_the_automatic_factory_is_that_of_all_passages(inputs: dict[str, object], tmp_path: Path) -> None:
    trained = train_quantizer(out=tmp_path / "out", **inputs)
    assert (trained.count, trained.factory) == (COUNT, "Flat")
    assert trained.quantizer == train_quantizer(out=tmp_path / "again", **inputs).quantizer


class _KilledError(Exception):
    pass


def test_a_killed_shard_is_resumed_to_the_same_bytes(
    inputs: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.load(inputs["embeddings"]).astype(np.float32)
    asked: list[int] = []

    def blocks(first: int, last: int = COUNT) -> Iterator[Array]:
        asked.append(first)
        for start in range(first, last, 16):
            yield vectors[start : start + 16]
        if last < COUNT:
            raise _KilledError

    given = {**inputs, "embeddings": blocks}
    train_quantizer(out=tmp_path / "out", **given, factory="IVF4,PQ2x4")
    build_shard(out=tmp_path / "out", shard=1, shards=2, **given)
    expected = [(tmp_path / "out" / "shard-0001" / name).read_bytes() for name in FILES]
    shutil.rmtree(tmp_path / "out" / "shard-0001")
    monkeypatch.setattr("ragengine.indexing.writer._SAVE_SECONDS", 0.0)
    killed = {**given, "embeddings": lambda first: blocks(first, 198)}
    with pytest.raises(_KilledError):
        build_shard(out=tmp_path / "out", shard=1, shards=2, **killed)
    asked.clear()
    build_shard(out=tmp_path / "out", shard=1, shards=2, **given, resume=True)
    assert asked == [198]
    assert expected == [(tmp_path / "out" / "shard-0001" / name).read_bytes() for name in FILES]


def wrong_folder(out: Path, inputs: dict[str, object]) -> None:
    (out / "shard-0000").rename(out / "x")
    (out / "shard-0001").rename(out / "shard-0000")
    (out / "x").rename(out / "shard-0001")


def other_number(out: Path, inputs: dict[str, object]) -> None:
    build_shard(out=out, shard=1, shards=3, **inputs)


def other_training(out: Path, inputs: dict[str, object]) -> None:
    np.save(inputs["embeddings"], random_vectors(COUNT, E, seed=8))
    train_quantizer(out=out.parent / "other", **inputs, factory="IVF4,Flat", seed=1)
    build_shard(out=out.parent / "other", shard=1, shards=2, **inputs)
    shutil.rmtree(out / "shard-0001")
    (out.parent / "other" / "shard-0001").rename(out / "shard-0001")


def other_quantizer(out: Path, inputs: dict[str, object]) -> None:
    other_training(out, inputs)
    path = out / "shard-0001" / "manifest.json"
    manifest = json.loads(path.read_text())
    first = json.loads((out / "shard-0000" / "manifest.json").read_text())
    manifest["created_from"]["training"] = first["created_from"]["training"]
    manifest["seed"] = first["seed"]
    path.write_text(json.dumps(manifest))


def ordinary_index(out: Path, inputs: dict[str, object]) -> None:
    build_index(index=out / "shard-0001", **inputs, factory="IVF4,Flat")


def damaged(out: Path, inputs: dict[str, object]) -> None:
    path = out / "shard-0001" / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def absent(out: Path, inputs: dict[str, object]) -> None:
    shutil.rmtree(out / "shard-0001")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (wrong_folder, "is not shard 0 of 2 of the training beside it: its created_from"),
        (other_number, "is one of 2 shards, shard-0001 of 3"),
        (other_training, "is not shard 1 of 2 of the training"),
        (other_quantizer, "was trained otherwise"),
        (ordinary_index, "was not built as a shard of several"),
        (damaged, "sha256"),
        (absent, "lacks the shards 1/2; build them"),
    ],
)
def test_shards_that_do_not_belong_together_are_not_gathered(
    inputs: dict[str, object],
    tmp_path: Path,
    harm: Callable[[Path, dict[str, object]], None],
    told: str,
) -> None:
    out = tmp_path / "out"
    train_quantizer(out=out, **inputs, factory="IVF4,Flat")
    for number in range(2):
        build_shard(out=out, shard=number, shards=2, **inputs)
    harm(out, inputs)
    with pytest.raises(IndexFolderError, match=told):
        gather_shards(out)
    assert not (out / "shards.json").exists()


def test_an_id_in_two_shards_is_refused(inputs: dict[str, object], tmp_path: Path) -> None:
    passages = write_passages(tmp_path / "passages.jsonl", COUNT, ids=True)
    passages.write_text(passages.read_text().replace('"p299"', '"p0"'))
    train_quantizer(out=tmp_path / "out", **inputs)
    for number in range(2):
        build_shard(out=tmp_path / "out", shard=number, shards=2, **inputs)
    with pytest.raises(PassagesError, match="Several passages have the id 'p0'"):
        gather_shards(tmp_path / "out")


def test_a_shard_of_other_passages_is_refused(inputs: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(IndexFolderError, match="is not a folder"):
        build_shard(out=out, shard=0, shards=2, **inputs)
    train_quantizer(out=out, **inputs)
    with pytest.raises(IndexFolderError, match="batch tokens was 1024, is 512"):
        build_shard(out=out, shard=0, shards=2, **inputs, batch_tokens=512)
    with (tmp_path / "passages.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(IndexFolderError, match=r"passages was passages\.jsonl"):
        build_shard(out=out, shard=0, shards=2, **inputs)
    assert sorted(path.name for path in out.iterdir()) == ["quantizer.faiss", "training.json"]


@pytest.mark.parametrize(("shard", "shards"), [(2, 2), (-1, 2), (True, 2), (0, 0), (0, 4097), ("0", 2)])
def test_wrong_numbers_are_refused(
    inputs: dict[str, object], tmp_path: Path, shard: int, shards: int
) -> None:
    with pytest.raises(InputError, match=r"shards? is"):
        build_shard(out=tmp_path / "out", shard=shard, shards=shards, **inputs)


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,PQ2x4fs", "IVF4,Flat,RFlat"])
def test_what_cannot_be_divided_is_not_trained(
    inputs: dict[str, object], tmp_path: Path, factory: str
) -> None:
    with pytest.raises(InputError, match="cannot be divided among shards"):
        train_quantizer(out=tmp_path / "out", **inputs, factory=factory)
    assert not (tmp_path / "out").exists()


def test_passages_of_a_program_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="passages that every job can read"):
        train_quantizer([{"text": "one"}], tmp_path / "out", bundle=bundle)


def test_the_commands_build_an_index_in_three_steps(inputs: dict[str, object], tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = CliRunner().invoke(index_command, ["build", *map(str, arguments)])
        if isinstance(done.exception, RagEngineError):
            return str(done.exception)
        return done.output

    out = tmp_path / "out"
    given = (inputs["passages"], out, "--bundle", inputs["bundle"], "--embeddings", inputs["embeddings"])
    assert "is trained for 300 passages: IVF4,Flat" in run(*given, "--train-only", "--factory", "IVF4,Flat")
    assert "Shard 0 of 2" in run(*given, "--shard", "0/2")
    assert "lacks the shards 1/2" in run(out, "--gather")
    assert "has rows 150 to 299" in run(*given, "--shard", "1/2")
    assert "from 0 to 1" in run(*given, "--shard", "2/2")
    assert "is not i/N" in run(*given, "--shard", "2")
    assert "does not take --recall, which belongs to --gather" in run(*given, "--shard", "0/2", "--recall", 1)
    assert "one at a time" in run(*given, "--shard", "0/2", "--gather")
    assert "reads no PASSAGES" in run(*given, "--gather")
    assert "Missing option '--bundle'" in run(inputs["passages"], out)
    assert "Missing argument 'PASSAGES...'" in run(out, "--bundle", "b")
    assert "2 (150, 150 passages)" in run(out, "--gather", "--recall", 1)
    assert ShardsManifest.read(out).tuning.target == 1.0
    assert "gathered already" in run(out, "--gather")
    assert IndexManifest.read(out / "shard-0000").count == 150
    again = CliRunner().invoke(index_command, ["shard", str(out / "shard-0000"), str(out), "--shards", "1"])
    assert "--force" in str(again.exception)


def test_gathering_again_leaves_the_old_index_until_the_new_one_is_there(
    inputs: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    train_quantizer(out=tmp_path / "trained", factory="IVF8,Flat", **inputs)
    build_apart(tmp_path / "trained", out, 2, inputs)
    queries = {number: tmp_path / f"{number}.npy" for number in range(3)}
    for number, path in queries.items():
        np.save(path, random_vectors(10 + number, E, seed=number))
    gather_shards(out, queries=queries[0], threads=1)
    before = (out / "shards.json").read_bytes()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gather, "write_shards_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            gather_shards(out, queries=queries[1], threads=1)
    assert (out / "shards.json").read_bytes() == before
    verify_index(out)  # the old index is whole, with its questions
    for number in (1, 2):
        tuning = gather_shards(out, queries=queries[number], threads=1).tuning
        assert tuning is not None
        assert tuning.queries == 10 + number
        verify_index(out)
        assert len(list(out.glob("queries*.npy"))) == 1
    gather_shards(out, threads=1)
    assert list(out.glob("queries*.npy")) == []
