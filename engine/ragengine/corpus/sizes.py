"""How large a corpus is, before it is read."""

from pathlib import Path

from ragengine.corpus.passage import utf8_lines
from ragengine.corpus.readers import passages_kind
from ragengine.errors import PassagesError

_SAMPLED_BYTES = 1 << 20


_WORD_BYTES = 6  # of English text, with its space


def passages_bytes(path: Path) -> int:
    """The size of the files that the passages at ``path`` are read from, which bounds that of their texts."""
    return sum(file.stat().st_size for file in source_files(path))


def source_files(path: Path) -> list[Path]:
    """The files that the passages at ``path`` are read from, in order."""
    kind = passages_kind(path)
    if not path.is_dir():
        return [path]
    if kind == "text":
        from ragengine.corpus.text_files import text_files

        return text_files(path)
    from ragengine.corpus.hf_dataset import data_files

    return data_files(path)


def estimate_count(path: Path) -> int:
    """About how many passages there are: exact for a dataset, by the first megabyte of lines of a file."""
    kind = passages_kind(path)
    if kind == "dataset":
        from ragengine.corpus.hf_dataset import count_rows

        return count_rows(path)
    size = passages_bytes(path)
    if kind == "text":
        from ragengine.corpus.text_files import WORDS_PER_PASSAGE

        return size // (WORDS_PER_PASSAGE * _WORD_BYTES) + len(source_files(path))
    lines = read = 0
    try:
        for line in utf8_lines(path):
            lines, read = lines + 1, read + len(line.encode())
            if read >= _SAMPLED_BYTES:
                break
    except PassagesError:
        pass  # reading all of it will say so, with its line
    return lines * size // max(read, 1)
