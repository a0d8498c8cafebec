"""Targets that cannot or must not be written: an early error in one sentence, and nothing is changed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import IndexFolderError, InputError, RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import delete_passages
from ragengine.storage import atomic
from tests.robustness.endings import can_mount, run_endings
from tests.robustness.writers import content, leftovers
from tests.support.commands import COMMAND


@pytest.fixture
def public(scene: Path) -> Iterator[Path]:
    """A copy of the scene that another user can read; folders that pytest makes for root are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(scene, folder / "scene")
        for path in (folder, folder / "scene"):
            path.chmod(0o755)
        yield folder


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("command", ["build", pytest.param("add", marks=pytest.mark.slow)])
def test_what_is_not_permitted_is_said(command: str, public: Path) -> None:
    said = run_endings(command, public / "scene", public / "work", "forbidden", "all")
    assert all("Permission denied" in sentence for sentence in said)


def test_read_only_disk_and_mount_point_are_said(scene: Path, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("nothing can be mounted here (unshare -rm)")
    said = run_endings("build", scene, tmp_path / "work", "mounts", "all", mounted=True)
    assert "Read-only file system" in said[0]
    assert "is a mount point, which cannot be replaced; give a path inside it" in said[1]


def build(scene: Path, target: str | Path) -> None:
    embeddings = scene / "few.npy"
    bundle = scene / "old" / "export"
    build_index(scene / "few.jsonl", target, bundle=bundle, embeddings=embeddings, force=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "exists and is not a ragengine-index"),
        ("file/index", "cannot be written: (File exists|Not a directory)"),
        ("file/deeper/index", "cannot be written: (File exists|Not a directory)"),
        ("x" * 256, "File name too long"),
        ("x" * 250, r"File name too long.*; choose a shorter name"),
        ("a\0b", "is not a path .*null"),
        ("half\ud800", "is not a path .*surrogates"),
        ("loop", "exists and is not a ragengine-index"),
    ],
)
def test_impossible_paths_are_one_sentence(name: str, message: str, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(IndexFolderError, match=message) as caught:
        build(scene, tmp_path / name)
    assert len(str(caught.value)) < 1000
    assert (tmp_path / "file").read_text() == "a file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_missing_folders_are_made_and_dangling_links_followed(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a/b/index", "link"):
        build(scene, tmp_path / name)
        assert content(tmp_path / name)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["", ".", "{}", "../{}"])
def test_current_folder_is_not_taken_away(
    name: str, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.chdir(index)
    with pytest.raises(IndexFolderError, match="is or holds the current folder"):
        build(scene, name.format(index if name == "{}" else index.name))
    assert Path.cwd() == index


def test_files_that_somebody_put_into_an_index_are_not_lost(scene: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(scene, index)
    (index / "notes").mkdir()
    (index / "notes" / "thesis.txt").write_text("years of work")
    for change in (lambda: build(scene, index), lambda: delete_passages(index, ["p1"])):
        with pytest.raises(IndexFolderError, match=r"holds notes/thesis\.txt beside the .*; move them away"):
            change()
        assert (index / "notes" / "thesis.txt").read_text() == "years of work"
        assert leftovers(index) == []
    shutil.rmtree(index / "notes")
    assert delete_passages(index, ["p1"]).count == 49


def test_planted_link_does_not_cost_the_folder_it_points_to(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / ".index.writing").symlink_to(tmp_path / "thesis")
    with pytest.raises(IndexFolderError, match=r"cannot be written.*index\.writing"):
        build(scene, tmp_path / "index")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_writers_at_once_never_mix(scene: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    command: list[object] = [*COMMAND, "index", "build"]
    command += [scene / "few.jsonl", index, "--bundle", scene / "old" / "export"]
    command += ["--embeddings", scene / "few.npy", "--threads", "1", "--force"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    writers = [
        subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    ends = [(writer.communicate()[1], writer.returncode) for writer in writers]
    assert 0 in [code for _, code in ends]
    for said, code in ends:
        assert code == 0 or (code == 1 and "is being written by another process; wait for it" in said), said
    assert content(index)
    assert leftovers(index) == []


def test_inputs_that_are_the_target_are_refused_or_whole(scene: Path, tmp_path: Path) -> None:
    """Passages inside the index that they would replace are kept; an index may replace itself."""
    index = tmp_path / "index"
    build(scene, index)
    shutil.copy(scene / "few.jsonl", index)
    with pytest.raises(RagEngineError, match=r"holds few\.jsonl beside"):
        build_index(index / "few.jsonl", index, bundle=scene / "old" / "export", embeddings=scene / "few.npy")
    (index / "few.jsonl").unlink()
    with pytest.raises(InputError, match="no passage with the id"):
        delete_passages(index, ["absent"])
    assert content(index)


def test_files_that_come_while_an_index_is_written_are_not_lost(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the exchange, and between the last look at the old index and the exchange."""
    index = tmp_path / "index"
    build(scene, index)
    before = content(index)

    def put(phase: str, done: int, total: int | None) -> None:
        (index / "thesis.txt").write_text("years of work")

    with pytest.raises(IndexFolderError, match=r"holds thesis\.txt beside the .*; move them away"):
        delete_passages(index, ["p1"], progress=put)
    (index / "thesis.txt").unlink()
    assert content(index) == before
    for exchanged in (True, False):  # where folders cannot change places, too
        real = atomic.exchange if exchanged else lambda *_: False

        def late(source: Path, target: Path, real: Any = real) -> Any:
            (target / "late").mkdir(exist_ok=True)
            return real(source, target)

        monkeypatch.setattr(atomic, "exchange", late)
        with pytest.raises(IndexFolderError, match=r"holds late beside the .*; move them away"):
            delete_passages(index, ["p1"])
        (index / "late").rmdir()
        assert content(index) == before
        assert leftovers(index) == []


def test_an_empty_folder_that_somebody_made_is_not_removed(scene: Path, tmp_path: Path) -> None:
    build(scene, tmp_path / "index")
    (tmp_path / "index" / "notes").mkdir()
    with pytest.raises(IndexFolderError, match="holds notes beside the ragengine-index"):
        build(scene, tmp_path / "index")
    assert (tmp_path / "index" / "notes").is_dir()


@pytest.mark.parametrize("resume", [False, True])
def test_somebodys_own_folders_with_our_names_are_kept(resume: bool, scene: Path, tmp_path: Path) -> None:
    index, own, backup = (tmp_path / name for name in ("index", ".index.writing", ".index.retired"))
    build(scene, backup)
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    with pytest.raises(IndexFolderError, match=r"\.index\.writing is not a folder that ragengine made"):
        build_index(
            scene / "few.jsonl",
            index,
            bundle=scene / "old" / "export",
            embeddings=scene / "few.npy",
            resume=resume,
        )
    assert (own / "thesis.txt").read_text() == "years of work"
    assert not index.exists()
    shutil.rmtree(own)
    build(scene, index)
    build(scene, index)
    assert leftovers(index) == [".index.retired"]
    assert content(backup) == content(index)


@pytest.mark.parametrize("kind", ["fifo", "sparse", "deep", "link"])
def test_odd_manifest_at_the_target_is_refused_at_once(kind: str, scene: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "index" / "manifest.json"
    manifest.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(manifest)
    elif kind == "deep":
        manifest.write_text('{"format": "ragengine-index", "x": ' + "[" * 600 + "]" * 600 + "}")
    elif kind == "link":
        manifest.symlink_to("/dev/zero")
    else:
        with manifest.open("wb") as file:
            file.truncate(100 << 30)
    with pytest.raises(IndexFolderError, match="exists and is not a ragengine-index"):
        build(scene, tmp_path / "index")
    assert leftovers(tmp_path / "index") == []
