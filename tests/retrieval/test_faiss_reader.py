"""Opening FAISS files: mapped so that size does not matter, limited so that forged ones cost nothing."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import IndexFolderError
from ragengine.retrieval import faiss_reader
from ragengine.retrieval.faiss_header import table_bytes
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FAISS_FILE
from tests.support.bundles import random_vectors, rewrite_manifest, write_bundle

FACTORIES = ["Flat", "SQ8", "PQ4x4", "HNSW8", "HNSW8_SQ8", "IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4"]
FACTORIES += ["OPQ4_8,IVF8,PQ4x4", "PCA8,IVF8,Flat", "IVF8,PQ4x4fs", "IVF8_HNSW4,Flat", "IVF8,PQ4x4,RFlat"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux accounts for it")


def write(path: Path, factory: str) -> Path:
    vectors = random_vectors(400, 16)
    faiss_index = faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(vectors)
    faiss_index.add(vectors)
    faiss.write_index(faiss_index, str(path))
    return path


def run(code: str, *arguments: object) -> str:
    """Run Python in a process of its own, which has all the memory and all the crashes to itself."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_mapped_index_finds_what_one_in_memory_finds(tmp_path: Path, factory: str) -> None:
    path = write(tmp_path / "index.faiss", factory)
    asked = random_vectors(10, 16, seed=1)
    scores, rows = read_faiss(path, mapped=True).search(asked, 20)
    expected_scores, expected_rows = read_faiss(path, mapped=False).search(asked, 20)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)


HEADROOM = 12 * 2**20
"""Bytes of memory that opening and searching may take; the index has more than twice as many."""
LARGER_THAN_MEMORY = """
import resource, sys
import faiss, numpy as np
from ragengine.errors import IndexFolderError
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex

large, small, headroom = *sys.argv[1:3], int(sys.argv[3])
faiss.omp_set_num_threads(1)
PassageIndex.open(small).warm_up()  # what the libraries keep for themselves is there
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (used + headroom,) * 2)  # mapped files do not count
try:
    read_faiss(PassageIndex.open(large, verify="size").path / "index.faiss", mapped=False)
except IndexFolderError as error:
    print("in memory:", error)
with PassageIndex.open(large, verify="size") as index:
    question = np.asarray(np.load(large + "/vectors.npy", mmap_mode="r")[777:778], np.float32)
    print("mapped:", index.search_documents(question, 1)[0][0].id)
"""


@linux
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat"])
def test_an_index_larger_than_memory_opens_and_answers(
    build: Callable[..., Path], tmp_path: Path, factory: str
) -> None:
    small = build(random_vectors(50)).rename(tmp_path / "small")
    vectors = random_vectors(25_000, 256)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bundle = write_bundle(tmp_path / "wide", 256)
    large = build(vectors, bundle=bundle, factory=factory, recall=0.01)
    assert (large / FAISS_FILE).stat().st_size > 2 * HEADROOM
    in_memory, mapped = run(LARGER_THAN_MEMORY, large, small, HEADROOM).splitlines()
    assert "cannot be read by faiss" in in_memory
    assert mapped == "mapped: id777"


FUZZ = """
import random, resource, sys
from pathlib import Path
import faiss
from ragengine.errors import IndexFolderError
from ragengine.retrieval.faiss_reader import read_faiss

path, mapped, rounds = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3])
whole = path.read_bytes()
random.seed(0)
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (used + 64 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
refused = 0
for number in range(rounds):
    forged = bytearray(whole)
    if number % 4 == 0:
        forged = forged[: random.randrange(len(whole))]
    else:
        at = random.randrange(min(160, len(whole)) if number % 4 < 3 else len(whole) - 8)
        huge = random.choice([b"\\xff" * 8, (2**38).to_bytes(8, "little"), random.randbytes(8)])
        forged[at : at + 8] = huge[: random.choice([1, 4, 8])]
    path.write_bytes(forged)
    try:
        read_faiss(path, mapped=mapped)  # and let go of it: what was read must be fit to be freed
    except IndexFolderError as error:
        refused += 1
        if "bad_alloc" in str(error):
            print("too much memory:", number)
print(refused > rounds // 4)
"""


@linux
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "OPQ4_8,IVF8,PQ4x4", "IVF8,PQ4x4fs"])
def test_forged_files_neither_crash_nor_take_memory(tmp_path: Path, factory: str, mapped: bool) -> None:
    assert run(FUZZ, write(tmp_path / "index.faiss", factory), mapped, 120) == "True\n"


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Limits of the process that are no others': bytes of a vector, and turns of a loop."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(2**40 + 7)
    faiss.set_deserialization_loop_limit(2**40 + 9)
    yield 2**40 + 7, 2**40 + 9
    faiss.set_deserialization_vector_byte_limit(before[0])
    faiss.set_deserialization_loop_limit(before[1])


def test_the_limit_holds_while_the_header_is_read(
    tmp_path: Path, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = write(tmp_path / "index.faiss", "Flat"), []

    def recorded(path: Path, size: int) -> int:
        found.append(faiss.get_deserialization_vector_byte_limit())
        return table_bytes(path, size)

    monkeypatch.setattr(faiss_reader, "table_bytes", recorded)
    read_faiss(path, mapped=False)
    assert found == [2**20 + 1]


def test_a_mapped_index_leaves_its_lists_in_the_file_and_has_no_tables(tmp_path: Path) -> None:
    vectors, path = random_vectors(400, 16), tmp_path / "index.faiss"
    for factory in ("IVF8,Flat", "IVF8,PQ4x4"):
        made = faiss.index_factory(16, factory, faiss.METRIC_L2)
        made.train(vectors)
        made.add(vectors)
        faiss.write_index(made, str(path))
        for mapped, kind in ((True, faiss.OnDiskInvertedLists), (False, faiss.ArrayInvertedLists)):
            found = read_faiss(path, mapped=mapped)
            assert isinstance(faiss.downcast_InvertedLists(found.invlists), kind)
            assert "PQ" not in factory or not found.precomputed_table.size()


def test_a_graph_of_codes_has_no_table_for_adding(tmp_path: Path) -> None:
    found = read_faiss(write(tmp_path / "index.faiss", "HNSW8_PQ4x4"), mapped=False)
    assert not faiss.downcast_index(found.storage).pq.sdc_table.size()


@pytest.mark.parametrize(("place", "message"), [(".", "keeps its inverted lists"), ("a", "cannot be read")])
def test_lists_in_another_folder_are_not_even_opened(tmp_path: Path, place: str, message: str) -> None:
    """Any file of the reader's may be named there; a file beside the index is opened, and refused."""
    made: Any = faiss.index_factory(16, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    made.train(random_vectors(400, 16))
    (tmp_path / place).mkdir(exist_ok=True)
    lists = faiss.OnDiskInvertedLists(4, made.code_size, str(tmp_path / place / "lists"))
    made.replace_invlists(lists)
    made.add(random_vectors(400, 16))
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFolderError, match=message):
        read_faiss(tmp_path / "index.faiss", mapped=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_waits_for_a_file_that_is_read_and_finds_the_lock_open(tmp_path: Path) -> None:
    path, held = write(tmp_path / "index.faiss", "Flat"), threading.Event()

    def read_slowly() -> None:
        with faiss_reader._reading:
            held.set()
            time.sleep(0.3)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(int(faiss_reader._reading.locked()))
    assert os.waitpid(child, 0)[1] == 0
    reader.join()
    assert not faiss_reader._reading.locked()
    assert read_faiss(path, mapped=True).ntotal == 400


def test_limits_are_those_of_the_file_and_only_while_it_is_read(
    tmp_path: Path, limits: tuple[int, int]
) -> None:
    path = write(tmp_path / "index.faiss", "OPQ4_8,IVF8,PQ4x4")
    content = path.read_bytes()
    at = content.index((8 * 16).to_bytes(8, "little"))  # the length of the rotation, [8, 16]
    path.write_bytes(content[:at] + (1 << 18).to_bytes(8, "little") + content[at + 8 :])
    with pytest.raises(IndexFolderError, match=r"cannot be read by faiss.*copy or build the index again"):
        read_faiss(path, mapped=True)
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == limits


def test_empty_faiss_file_is_refused(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    (path / FAISS_FILE).write_bytes(b"")
    rewrite_manifest(path)
    with pytest.raises(IndexFolderError, match=r"index\.faiss cannot be read by faiss"):
        PassageIndex.open(path)


@pytest.mark.parametrize(
    ("factory", "kind"), [("RaBitQ", "IndexRaBitQ"), ("PCA8,IVF4,RQ2x4", "IndexIVFResidualQuantizer")]
)
def test_a_kind_that_is_not_searched_is_not_read(tmp_path: Path, factory: str, kind: str) -> None:
    """A forged IndexRaBitQ crashes FAISS; kinds that nobody has tried so are not let in."""
    path = write(tmp_path / "index.faiss", factory)
    for mapped in (True, False):
        with pytest.raises(IndexFolderError, match=rf"index\.faiss holds an {kind}, .* use Flat, SQ"):
            read_faiss(path, mapped=mapped)


def test_an_index_without_training_is_refused(tmp_path: Path) -> None:
    made = faiss.index_factory(16, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFolderError, match="has an IndexIVFFlat without training"):
        read_faiss(tmp_path / "index.faiss", mapped=True)


def test_an_index_in_an_index_has_as_many_vectors(tmp_path: Path) -> None:
    """FAISS would look beyond the end of the shorter one."""
    made: Any = faiss.index_factory(16, "PQ4x4,RFlat", faiss.METRIC_INNER_PRODUCT)
    made.train(random_vectors(400, 16))
    made.add(random_vectors(400, 16))
    faiss.downcast_index(made.refine_index).add(random_vectors(1, 16))
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    with pytest.raises(IndexFolderError, match="has an IndexRefineFlat of 400 parts over 401"):
        read_faiss(tmp_path / "index.faiss", mapped=False)


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
@pytest.mark.parametrize(
    "factory", ["IVF256,PQ128x4fs", "RR,IVF256,PQ64x4fsr,RFlat", "PCA64,OPQ32,IVF512,PQ32x4fs"]
)
def test_fast_scan_lists_are_read_though_their_table_is_larger_than_the_file(
    tmp_path: Path, factory: str, metric: int
) -> None:
    vectors, path = random_vectors(600, 128), tmp_path / "index.faiss"
    made = faiss.index_factory(128, factory, metric)
    made.train(vectors)
    made.add(vectors)
    faiss.write_index(made, str(path))
    size = path.stat().st_size
    assert table_bytes(path, size) > max(size, 2**20)
    for mapped in (True, False):
        rows = read_faiss(path, mapped=mapped).search(vectors[:5], 3)[1]
        np.testing.assert_array_equal(rows, made.search(vectors[:5], 3)[1])


def test_a_forged_header_allows_no_more_than_its_file_explains(tmp_path: Path) -> None:
    path = write(tmp_path / "index.faiss", "IVF8,PQ4x4fs")
    content = bytearray(path.read_bytes())
    size = len(content)
    assert table_bytes(path, size) == 64 * 8 * 16
    content[37:45] = (size // 64 + 1).to_bytes(8, "little")  # nlist
    path.write_bytes(content)
    assert table_bytes(path, size) == 0
    for length in range(0, 60, 3):
        path.write_bytes(content[:length])
        assert table_bytes(path, length) == 0
        with pytest.raises(IndexFolderError, match="cannot be read by faiss"):
            read_faiss(path, mapped=True)


@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2, faiss.METRIC_L1])
def test_the_table_of_a_header_whatever_its_metric(tmp_path: Path, metric: int) -> None:
    """A metric that is neither of the first two has a parameter in the header."""
    path, made = tmp_path / "index.faiss", faiss.index_factory(16, "IVF8,PQ4x4fs")
    made.train(random_vectors(400, 16))
    made.metric_type = metric
    faiss.write_index(made, str(path))
    table = 64 * 8 * 16
    assert table_bytes(path, table // 16) == table
    assert table_bytes(path, table // 16 - 1) == 0
    path.write_bytes(b"IxFI" + path.read_bytes())  # of another kind, whose bytes mean something else
    assert table_bytes(path, table) == 0


@pytest.mark.parametrize("padded", [10**9, 0, 384, 448])
def test_codes_that_fill_other_blocks_than_the_header_says_are_refused(tmp_path: Path, padded: int) -> None:
    path = tmp_path / "index.faiss"
    made: Any = faiss.index_factory(16, "PQ4x4fs", faiss.METRIC_INNER_PRODUCT)
    made.train(random_vectors(400, 16))
    made.add(random_vectors(400, 16))
    made.ntotal2 = padded
    faiss.write_index(made, str(path))
    with pytest.raises(IndexFolderError, match=rf"blocks for {padded} vectors, but 400 vectors fill 832 in"):
        read_faiss(path, mapped=True)


@pytest.mark.parametrize(
    ("factory", "lists"),
    [
        ("IVF4,Flat", faiss.BlockInvertedLists(4, 32, 64)),
        ("IVF4,PQ4x4fs", faiss.ArrayInvertedLists(4, 2)),
        ("IVF4,PQ4x4fs", faiss.BlockInvertedLists(4, 32, 32)),
        ("IVF4,PQ4x4fs", faiss.BlockInvertedLists(4, 64, 128)),
    ],
)
def test_lists_of_another_layout_than_their_index_are_refused(
    tmp_path: Path, factory: str, lists: Any
) -> None:
    """FAISS would read codes where there are none."""
    made: Any = faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT)
    made.train(random_vectors(400, 16))
    lists.code_size = made.code_size
    made.replace_invlists(lists)
    path = tmp_path / "index.faiss"
    faiss.write_index(made, str(path))
    with pytest.raises(IndexFolderError, match="Lists of another layout"):
        read_faiss(path, mapped=False)
