"""`answer_file`: answers to a file of questions, as JSONL; a run that was killed goes on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, Unpack, get_args

from ragengine.batch_inference.identity import questions_identity
from ragengine.batch_inference.output import resumable_output
from ragengine.batch_inference.pool import Answering, InProcesses, InThisProcess, Setup, typed_error
from ragengine.batch_inference.questions import FileQuestion, read_file_questions
from ragengine.errors import InputError, PassagesError
from ragengine.messages import short_repr
from ragengine.options import GenerationOptions, GenerationOverrides, check_names, checked_kind
from ragengine.retrieval.passage_filter import Filter, PassageFilter
from ragengine.retrieval.sharding.remote.options import RemoteOptions
from ragengine.runtime.devices import Device
from ragengine.runtime.processor import available_cores
from ragengine.runtime.progress import Report, silent
from ragengine.storage.folders import Verify
from ragengine.storage.foreign_files import checked_path
from ragengine.validation import check_whole_number, checked_flag

OnError: TypeAlias = Literal["record", "stop"]
_MOST_PROCESSES: Final = 256
_LARGEST: Final = 2**63 - 1  # questions in a batch; what Python counts with


@dataclass(frozen=True)
class AnsweredFile:
    """What :func:`answer_file` has written.

    output     the file, one JSON object a question
    questions  the number of its lines
    failed     those of them that have an ``error`` instead of an answer
    resumed    those that an earlier run had answered
    seconds    of this run, loading included
    """

    output: Path
    questions: int
    failed: int
    resumed: int
    seconds: float


def answer_file(
    bundle: str | Path,
    index: str | Path,
    questions: str | Path,
    output: str | Path,
    *,
    processes: int = 1,
    batch_size: int = 8,
    on_error: OnError = "record",
    force: bool = False,
    device: Device = "auto",
    search_device: Device | None = None,
    threads: int | None = None,
    verify: Verify = "sha256",
    remote: RemoteOptions | None = None,
    doc_pruning: float | None = None,
    filter: Filter | None = None,
    adaptive_reading: bool = False,
    abstain: bool = False,
    deadline: float | None = None,
    progress: Report | None = None,
    options: GenerationOptions | None = None,
    **changes: Unpack[GenerationOverrides],
) -> AnsweredFile:
    """Answer a file of questions, as ``ragengine ask --file`` does.

    A run that was killed goes on when it is called again, and the output is that of one that was not: the
    questions are answered in the same batches, whoever answers them.  ``output`` appears when it is whole.

    Args:
        bundle: the bundle's folder.
        index: the index's folder.
        questions: JSONL with a ``question`` and perhaps an ``id`` a line, or plain lines; may end in ``.gz``.
        output: the JSONL file to write: ``line``, ``id``, ``run`` and answer, in the order of the questions.
        processes: how many answer; each loads the model.
        batch_size: questions answered together.
        on_error: whether a question that fails while it is answered gets an ``error`` in its line
            (``record``), or ends the run (``stop``).  A wrong line of ``questions`` is refused before.
        force: begin anew where an earlier run had other settings, and replace what is at ``output``.
        device: where the graphs run, as in :meth:`RagEngine.load`.
        search_device: where the index is searched, as in :meth:`RagEngine.load`.
        threads: threads of a graph in each process; the cores of this process shared among them where None.
        verify: how the files of bundle and index are checked.
        remote: as in :meth:`RagEngine.load`.
        doc_pruning: as in :meth:`RagEngine.generate`.
        filter: as in :meth:`RagEngine.generate`.
        adaptive_reading: as in :meth:`RagEngine.generate`.
        abstain: as in :meth:`RagEngine.generate`.
        deadline: seconds that a question may take; a batch that takes longer than that times its questions
            is answered one by one.
        progress: called as ``progress(done, total)`` after each batch.
        options: generation options, by default those of the model.
        **changes: single generation options by name.

    Returns:
        What was written.

    Raises:
        PassagesError: the file of questions is wrong; names the line.
        InputError: ``output`` holds something else or was begun with other settings, or an argument is wrong.
        OptionsError: a generation option is wrong.
        BundleError, IndexFolderError: bundle or index cannot be used.
        ProcessError: a process that answered was ended; what was answered stays.
    """
    begun = time.monotonic()
    check_whole_number("processes", processes, most=_MOST_PROCESSES)
    check_whole_number("batch_size", batch_size, most=_LARGEST)
    checked_flag("force", force)
    if on_error not in get_args(OnError):
        raise InputError(f"on_error is {short_repr(on_error)}; it must be record or stop.")
    if deadline is not None and not (type(deadline) in (int, float) and 0 < deadline < float("inf")):
        raise InputError(f"deadline is {short_repr(deadline)}; it must be seconds above 0, or None.")
    check_names(changes)
    source, target = checked_path(questions, PassagesError), checked_path(output, InputError)
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the file of questions, too; write the answers to another one.")
    asked = read_file_questions(source)
    passages = PassageFilter.of(filter)
    setup = Setup(
        bundle=str(bundle),
        index=str(index),
        load={
            "device": device,
            "search_device": search_device,
            "threads": max(1, available_cores() // processes) if threads is None else threads,
            "verify": verify,
            "remote": remote,
        },
        settings={
            **({} if options is None else checked_kind(options).to_dict()),
            **changes,
            "doc_pruning": doc_pruning,
            "filter": None if passages is None else passages.to_dict(),
            "adaptive_reading": adaptive_reading,
            "abstain": abstain,
        },
        deadline=deadline,
    )
    with _answering(setup, processes) as answering:
        settings = {
            **answering.identity,
            "questions": questions_identity(asked),
            "batch_size": str(batch_size),
            "deadline": str(deadline),
        }
        with resumable_output(target, asked, settings, batch_size=batch_size, force=force) as written:
            resumed, tell = written.done, progress or silent
            tell(resumed, len(asked))
            try:
                for records in answering.answered(_batches(asked[resumed:], batch_size)):
                    if on_error == "stop":
                        _check_answered(records, asked[written.done :], source)
                    written.add(records)
                    tell(written.done, len(asked))
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(
                    f"{written.done} of {len(asked)} questions are answered; run it again to go on"
                )
                raise
    return AnsweredFile(target, len(asked), written.failed, resumed, time.monotonic() - begun)


def _answering(setup: Setup, processes: int) -> Answering:
    return InThisProcess(setup) if processes == 1 else InProcesses(setup, processes)


def _batches(questions: list[FileQuestion], size: int) -> Iterator[list[str]]:
    for start in range(0, len(questions), size):
        yield [one.question for one in questions[start : start + size]]


def _check_answered(records: list[dict[str, Any]], asked: list[FileQuestion], source: Path) -> None:
    """Raise the error of the first record that has one, with its line."""
    for record, question in zip(records, asked, strict=False):
        if "error" in record:
            raise typed_error(record["error"], f"{source} line {question.line}: ")
