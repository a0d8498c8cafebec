"""Fuzz folders of ``datasets.Dataset.save_to_disk``: the file that lists them, and the Arrow files."""

import tempfile

import atheris

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.corpus.corpus import Corpus

from pathlib import Path

from tests.fuzz.fuzzing import fuzz

_STATE = b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": null}'
_ARROW = "data-00000-of-00001.arrow"


def read_dataset_folder(folder: Path, data: bytes) -> None:
    """The first byte chooses the file that ``data`` is."""
    for name, content in (("state.json", _STATE), (_ARROW, b""), ("dataset_info.json", b"{}")):
        (folder / name).write_bytes(content)
    (folder / ("state.json" if data[:1] == b"s" else _ARROW)).write_bytes(data[1:])
    corpus = Corpus.open(folder)
    for passage in corpus.read():
        passage.text.encode("utf-8")
    if corpus.has_embeddings():
        for block in corpus.read_embeddings():
            assert block.ndim == 2


def _seeds() -> list[bytes]:
    from datasets import Dataset

    rows = {"id": ["1", "2"], "title": ["a", "b"], "text": ["c", "d"], "embeddings": [[1.0, 2.0], [3.0, 4.0]]}
    with tempfile.TemporaryDirectory() as scratch:
        Dataset.from_dict(rows).save_to_disk(scratch)
        (arrow,) = Path(scratch).glob("*.arrow")
        return [b"s" + _STATE, b"a" + arrow.read_bytes()]


if __name__ == "__main__":
    fuzz(read_dataset_folder, _seeds())
