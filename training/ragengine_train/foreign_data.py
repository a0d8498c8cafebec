"""`[data]` in the formats of other projects: converted when a run starts; what follows reads JSONL."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from ragengine.corpus.passage import Passage
from ragengine_train.config import STAGES, TrainConfig, listed
from ragengine_train.data import TrainingPassages
from ragengine_train.data_convert import ConvertReport, write_questions
from ragengine_train.formats import Context, read_records
from ragengine_train.formats.detect import is_foreign


def as_jsonl(
    config: TrainConfig, corpus: TrainingPassages, folder: Path, tell: Callable[[ConvertReport], None]
) -> TrainConfig:
    """The configuration with our JSONL in ``folder`` in place of every file of questions of another format.

    A passage of an entry that is in the passages file is named by its id there; others are in the lines.

    Args:
        config: a folder in it means its split ``train``, for dev ``val``, ``dev`` or ``validation``.
        corpus: the passages file.
        folder: where the JSONL files are written, under names that follow from the paths.
        tell: called with the report of every conversion.

    Raises:
        PassagesError: a file cannot be read, or holds nothing that can be used.
        InputError: ``folder`` cannot be written.
    """

    def place(context: Context) -> str | None:
        return corpus.find(Passage(context.id or "", context.title, context.text))

    def converted(path: str, split: str) -> str:
        source = Path(path)
        if not is_foreign(source):
            return path
        digest = hashlib.sha256(f"{path} {split}".encode()).hexdigest()[:8]
        target = folder / f"{source.stem}-{split}-{digest}.jsonl"
        name, records = read_records(source, split=split)
        tell(write_questions(records, source, target, name, place))
        return str(target)

    def all_converted(paths: str | list[str]) -> list[str]:
        return [converted(path, "train") for path in listed(paths)]

    data = dataclasses.replace(
        config.data,
        train=all_converted(config.data.train),
        dev=None if config.data.dev is None else converted(config.data.dev, "val"),
    )
    stages = {
        name: dataclasses.replace(stage, train=all_converted(stage.train))
        for name in STAGES
        if (stage := getattr(config, name)) is not None and stage.train is not None
    }
    return dataclasses.replace(config, data=data, **stages)
