"""Swapping the index of a running server."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragengine import build_index
from ragengine_serve import Client, ServerError
from tests.support.paths import WORLDFACTS
from tests.support.served import QUESTION, Served, running, until, write_keys

ADMIN = "a-key-for-the-admins"
PASSAGES = '{"id": "new", "title": "Iceland", "text": "Its capital is Reykjavik, says the new index."}\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of indexes: ``small``, ``large``, and one that is none."""
    folder = tmp_path_factory.mktemp("indexes")
    (folder / "passages.jsonl").write_text(PASSAGES * 1)
    build_index(folder / "passages.jsonl", folder / "small", bundle=WORLDFACTS / "bundle")
    shutil.copytree(WORLDFACTS / "index", folder / "large")
    (folder / "broken").mkdir()
    (folder.parent / "outside").mkdir(exist_ok=True)
    (folder / "link").symlink_to(folder.parent / "outside")
    return folder


@pytest.fixture(scope="module")
def swapping(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    keys = write_keys(tmp_path_factory.mktemp("keys") / "admin", ADMIN)
    with running(admin_key_file=keys, index_root=root, cache_answers=8) as served:
        yield served


def test_admin_is_off_without_a_key(server: Served) -> None:
    assert server.post("/admin/index", {"path": "x"}).status == 404


def test_an_index_is_swapped_and_the_cache_emptied(swapping: Served) -> None:
    with Client(swapping.url) as client, Client(swapping.url, api_key=ADMIN) as admin:
        before = client.answer(QUESTION)
        assert client.answer(QUESTION).timings_ms["decode"] == before.timings_ms["decode"]  # cached
        assert swapping.metric('rag_request_shared_count_total{how="cached"}') == 1
        told = admin.swap_index("small")
        assert told["model"] == "worldfacts"
        assert told["index"]["passages"] == 1
        after = client.answer(QUESTION)
        assert [d.id for d in after.documents] == ["new"]
        assert client.info()["models"][0]["index"]["swaps"] == 1
        fingerprint = client.info()["models"][0]["index"]["fingerprint"]
        assert swapping.metric(f'rag_index_info{{index="{fingerprint}",model="worldfacts"}}') == 1
        admin.swap_index("large")
        assert client.answer(QUESTION).documents == before.documents


@pytest.mark.parametrize(
    "path", ["broken", "missing", "../outside", "link", "", ".", "/etc", "a\x00b", "small/.."]
)
def test_what_is_no_index_below_the_root_is_refused(swapping: Served, path: str) -> None:
    with Client(swapping.url, api_key=ADMIN) as admin:
        before = admin.info()["models"][0]["index"]
        with pytest.raises(ServerError) as error:
            admin.swap_index(path)
        assert (error.value.status, error.value.type, error.value.field) == (400, "invalid_index", "path")
        assert admin.info()["models"][0]["index"] == before


def test_no_request_is_lost_while_indexes_change(swapping: Served) -> None:
    """Every answer comes wholly from one of the two."""
    stop, failures, seen = threading.Event(), [], set()

    def ask(number: int) -> None:
        with Client(swapping.url) as client:
            while not stop.is_set():
                try:
                    answer = client.answer(f"{QUESTION} {number}", num_beams=1, max_new_tokens=2)
                    seen.add(len(answer.documents))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    with Client(swapping.url, api_key=ADMIN) as admin:
        for path in ("small", "large") * 2:
            admin.swap_index(path)
            until(lambda size={"small": 1, "large": 5}[path]: size in seen)
            seen.clear()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
