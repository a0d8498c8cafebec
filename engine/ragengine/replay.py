"""Replay records: what an answer was made from, and whether the same is made again.

A record is one JSON object: the fingerprints of bundle and index (the sha256 of each manifest, which holds
those of all their files), the options, and what came out.  Passages are recorded by id and
score, since the index fixes their text; documents given by the caller are recorded whole.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ragengine.errors import BundleError, IndexFolderError, InputError
from ragengine.messages import short_repr
from ragengine.options import GenerationOptions
from ragengine.results import Answer, Document
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.storage.atomic import output_file
from ragengine.storage.folders import sha256_of
from ragengine.storage.foreign_files import json_lines
from ragengine.storage.ownership import MANIFEST, SHARDS
from ragengine.storage.schema import parse
from ragengine.version import __version__

if TYPE_CHECKING:
    from ragengine.engine import RagEngine

FORMAT = "ragengine-replay"
FORMAT_VERSION = 1
TOLERANCE: Final = 1e-4  # of scores and log-probabilities: another thread count or device rounds otherwise


@dataclass(frozen=True)
class FolderRecord:
    """A bundle or an index: where it was, and the sha256 of its manifest (of shards: ``shards.json``)."""

    path: str
    sha256: str


@dataclass(frozen=True)
class DocumentRecord:
    """A document that was read or, with its prior under ``doc_pruning``, left out.

    ``title`` and ``text`` are there for documents the caller brought.
    """

    id: str
    score: float | None
    title: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Record:
    """How an answer came about.  ``documents`` are those read, ``pruned`` those left out."""

    ragengine: str
    device: str
    bundle: FolderRecord
    index: FolderRecord
    question: str
    options: dict[str, Any]
    doc_pruning: float | None
    own_documents: bool
    documents: list[DocumentRecord]
    pruned: list[DocumentRecord]
    token_ids: list[int]
    score: float
    log_prob: float
    text: str
    filter: dict[str, list[str]] | None = None
    adaptive_reading: bool = False

    @classmethod
    def of(cls, engine: "RagEngine", answer: Answer) -> "Record":
        """The record of an answer that has just been given; of one that was withheld, with its text.

        Args:
            engine: what gave it.
            answer: the answer.

        Raises:
            InputError: no replay can give it again: it was sampled without a seed, with
                ``prefix_allowed_tokens_fn``, from a document whose score JSON cannot hold, or from a folder
                that has been replaced since it was loaded.
        """
        if answer.options.do_sample and answer.options.seed is None:
            raise InputError(
                "The answer was sampled with seed=None, so it cannot be replayed; sample with a seed."
            )
        if answer.constrained:
            raise InputError(
                "The answer was generated with prefix_allowed_tokens_fn, which a record cannot hold; leave "
                "the function out."
            )
        for document in (*answer.documents, *answer.pruned):
            if not math.isfinite(document.score or 0.0):
                raise InputError(
                    f"The document {short_repr(document.id)} has the score {document.score}, which a record "
                    "cannot hold; leave the document out."
                )
        options = answer.options.to_dict()
        try:
            json.dumps(options)
        except TypeError as reason:
            raise InputError(
                f"The answer's options cannot be recorded ({reason}); leave functions out."
            ) from reason
        index = engine.retriever.index
        try:
            engine.bundle.check_unchanged()
            same = type(index.manifest).read(index.path) == index.manifest
        except (BundleError, IndexFolderError) as reason:
            raise InputError(f"The answer cannot be recorded: {reason}") from reason
        if not same:
            raise InputError(
                f"The answer cannot be recorded: {index.path} holds another index than was loaded; call "
                "swap_index."
            )
        token_ids = answer.hypotheses[0].token_ids.tolist()
        withheld = "abstained" in answer.flags
        return cls(
            ragengine=__version__,
            device=engine.generator.device,
            bundle=_folder(engine.bundle.path, MANIFEST),
            index=_folder(index.path, SHARDS if isinstance(index.manifest, ShardsManifest) else MANIFEST),
            question=answer.question,
            options=options,
            doc_pruning=answer.doc_pruning,
            own_documents=answer.own_documents,
            documents=_documents(answer.documents, whole=answer.own_documents),
            pruned=_documents(answer.pruned, whole=answer.own_documents),
            token_ids=token_ids,
            score=answer.score,
            log_prob=answer.log_prob,
            text=engine._tokenizer.decode(token_ids) if withheld else answer.raw_text,
            filter=answer.filter,
            adaptive_reading=answer.adaptive_reading,
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, with format name and version."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, content: object, source: str = "The record") -> "Record":
        """A record from JSON values.

        Args:
            content: what :meth:`to_dict` gives.
            source: what the error calls it.

        Raises:
            InputError: it is none; names every fault.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{source} says format {found!r}; {FORMAT!r} was expected.")
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{source} has format version {content.get('format_version')!r}, this ragengine reads "
                f"{FORMAT_VERSION}; use the version that wrote it."
            )
        parsed = parse(cls, content)
        if parsed.value is None:
            raise InputError(f"{source} is damaged: {'; '.join(parsed.errors)}.")
        return parsed.value


@dataclass(frozen=True)
class Replay:
    """An answer given again; ``differences`` are sentences without a full stop, none where it is the same."""

    answer: Answer
    differences: tuple[str, ...]


def replay(engine: "RagEngine", record: Record) -> Replay:
    """Answer the recorded question again, and compare everything that was recorded.

    Scores may differ by 1e-4 (absolute, or relative where they are larger than 1); all else must be equal.

    Args:
        engine: what answers again.
        record: of the answer.

    Raises:
        OptionsError: this version or this model cannot follow the recorded options.
    """
    options = GenerationOptions.from_dict(record.options)
    own: list[Document] | None = None
    if record.own_documents:
        own = [
            Document(document.title or "", document.text or "", document.id, document.score)
            for document in (*record.documents, *record.pruned)
        ]
    answer = engine.generate(
        record.question,
        options=options,
        documents=own,
        doc_pruning=record.doc_pruning,
        filter=record.filter,
        adaptive_reading=record.adaptive_reading,
    )
    again = Record.of(engine, answer)
    return Replay(answer, tuple(_differences(record, again)))


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records, one JSON object a line.  Raises :class:`InputError` where that cannot be."""
    lines = [json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records]
    with output_file(path) as file:
        file.write("".join(lines).encode())


def read_records(path: Path) -> list[Record]:
    """Read what :func:`write_records` wrote.  Raises :class:`InputError` with file, line and every fault."""
    records = []
    for number, line in json_lines(path, InputError):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as reason:
            raise InputError(f"{path} line {number} is not JSON: {reason}.") from reason
        records.append(Record.from_dict(content, f"{path} line {number}"))
    if not records:
        raise InputError(f"{path} holds no records; write some with ragengine ask --record {path}.")
    return records


def _differences(then: Record, now: Record) -> Iterator[str]:
    for name, old, new in (("bundle", then.bundle, now.bundle), ("index", then.index, now.index)):
        if old.sha256 != new.sha256:
            yield (
                f"{name}: the manifest of {new.path} has sha256 {new.sha256[:12]}, "
                f"recorded was {old.sha256[:12]} of {old.path}"
            )
    for label, before, after in (
        ("documents", then.documents, now.documents),
        ("pruned", then.pruned, now.pruned),
    ):
        ids, ids_now = [d.id for d in before], [d.id for d in after]
        if ids != ids_now:
            yield _first_difference(f"{label} (ids)", ids, ids_now)
        for old_one, new_one in zip(before, after, strict=False):
            if old_one.id == new_one.id and not _close(old_one.score, new_one.score):
                yield f"{label}: {old_one.id!r} has the score {new_one.score}, recorded was {old_one.score}"
    if then.token_ids != now.token_ids:
        yield _first_difference("token_ids", then.token_ids, now.token_ids)
    for name in ("score", "log_prob"):
        if not _close(getattr(then, name), getattr(now, name)):
            yield f"{name}: {getattr(now, name):.6f}, recorded was {getattr(then, name):.6f}"
    if then.text != now.text:
        yield f"text: {now.text!r}, recorded was {then.text!r}"


def _first_difference(name: str, old: Sequence[object], new: Sequence[object]) -> str:
    place = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return f"{name}: {len(new)} of them, recorded were {len(old)}"
    return f"{name}: {new[place]!r} at place {place + 1}, recorded was {old[place]!r}"


def _close(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is new
    return old == new or (math.isfinite(old) and abs(old - new) <= TOLERANCE * max(1.0, abs(old)))


def _folder(path: Path, name: str) -> FolderRecord:
    return FolderRecord(str(path.resolve()), sha256_of(path / name))


def _documents(documents: Sequence[Document], *, whole: bool) -> list[DocumentRecord]:
    return [
        DocumentRecord(d.id, d.score, d.title if whole else None, d.text if whole else None)
        for d in documents
    ]
