"""Encode the passages again while training goes on, and let the retriever search the new index.

At a step that is a multiple of ``reindex_every`` the passage encoder is copied; a thread encodes the passages
with the copy and builds an index.  When it is ready, or exactly ``reindex_delay`` steps later, the retriever
searches it.  Of several processes the first one makes the index, and all search it from the same step on.
A checkpoint says in its `trainer_state.json` which index it was made with.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ragengine_train.folders import remove, replaced
from ragengine_train.processes import first, is_first
from ragengine_train.progress import Progress, TrainProgress

Check: TypeAlias = Callable[[], None]
ENCODER, INDEX = "context_encoder", "index"
_STATE = "trainer_state.json"


class _StoppedError(Exception):
    """Training has ended, and nobody needs the index that is being made."""


class Reindexing(TrainerCallback, ExportableState):  # type: ignore[misc]  # transformers is untyped
    """Keeps the index as fresh as the settings say; a context manager that ends its thread.

    ``step`` is the step whose passage encoder has made the index that is searched; 0 is the index that the
    stage began with.
    """

    def __init__(
        self,
        every: int,
        delay: int | None,
        folder: Path,
        *,
        save: Callable[[Path], None],
        encode: Callable[[Path, Path], Callable[[Check], None]],
        swap: Callable[[Path], None],
        progress: Progress,
    ) -> None:
        """Take the parts that know networks and indexes.

        Args:
            every: steps after which an index is begun; 0 for none.
            delay: steps after which it is used; as soon as it is ready where None.
            folder: gets a folder a step, with the copied encoder and the index.
            save: writes the passage encoder as it is now to a folder.
            encode: loads the encoder in the first folder, and returns what makes an index of it in the
                second, in a thread; that calls its argument often, which raises where it is to end early.
            swap: lets the retriever search an index from now on.
            progress: is told what happens.
        """
        self._every, self._delay, self._folder = every, delay, folder
        self._save, self._encode, self._swap, self._progress = save, encode, swap, progress
        self.step = 0
        self._making: _Making | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint says: the step of its index."""
        return {"args": {}, "attributes": {"step": self.step}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Search the index of the checkpoint; go on with one that was being made for it."""
        now = state.global_step
        self.step = _index_step(state.stateful_callbacks) if now else 0
        begun = first(lambda: self._begun(now))
        if self.step:
            self._swap(self._path(self.step) / INDEX)
        if begun:
            self._start(begun)

    def _begun(self, now: int) -> int:
        """The step of the index that was being made at step ``now``, 0 if none; later ones are removed."""
        begun = 0
        for step, folder in self._steps():
            if step > now:  # made in steps that are done again
                remove(folder)
            elif step > self.step:
                begun = max(begun, step)
        return begun

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin an index, use a new one, or neither."""
        now = state.global_step
        self._use_if_due(now)
        if self._every and now % self._every == 0 and now < state.max_steps:
            self._begin(now)
            self._use_if_due(now)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the indexes that no checkpoint names."""
        if not is_first():
            return
        kept = {self.step} if self._making is None else {self.step, self._making.step}
        for checkpoint in Path(args.output_dir).glob("checkpoint-*"):
            content = json.loads((checkpoint / _STATE).read_text("utf-8"))
            kept.add(_index_step(content["stateful_callbacks"]))
        for step, folder in self._steps():
            if step not in kept:
                remove(folder)

    def __enter__(self) -> "Reindexing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread: nobody will search what it makes."""
        if self._making is not None:
            self._making.stop()
            self._making = None

    def _begin(self, now: int) -> None:
        """Copy the encoder and start, unless another index is being made."""
        if self._making is not None:
            self._say(f"  {now}: the index of step {self._making.step} is still being made")
            return
        first(lambda: self._copy(now))
        self._start(now)

    def _copy(self, now: int) -> None:
        remove(self._path(now))  # of a run that was killed, and is done again
        with replaced(self._path(now) / ENCODER) as folder:
            self._save(folder)

    def _start(self, step: int) -> None:
        folder = self._path(step)
        work = self._encode(folder / ENCODER, folder / INDEX) if is_first() else None
        self._making = _Making(step, work)

    def _use_if_due(self, now: int) -> None:
        """Let the retriever search the index in the making, if it is used from this step on."""
        making = self._making
        if making is None:
            return
        if not (first(lambda: making.ready) if self._delay is None else now >= making.step + self._delay):
            return
        first(making.wait)
        self._swap(self._path(making.step) / INDEX)
        self.step, self._making = making.step, None
        self._say(
            f"  {now}: searching the index of step {self.step}, {now - self.step} steps later; "
            f"it was made in {making.seconds:.1f} s"
        )

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:06}"

    def _steps(self) -> Iterator[tuple[int, Path]]:
        """The steps whose encoder was copied whole, and their folders."""
        for folder in sorted(self._folder.glob("[0-9]*")):
            if (folder / ENCODER).exists():
                yield int(folder.name), folder

    def _say(self, message: str) -> None:
        self._progress(TrainProgress("joint", message))


class _Making:
    """A thread that makes the index of a step; in other processes than the first there is none."""

    def __init__(self, step: int, work: Callable[[Callable[[], None]], None] | None) -> None:
        self.step, self.seconds = step, 0.0
        self._work = work
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reindex-{step}")
        if work is not None:
            self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the thread has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until the index is there; raises what the thread has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let the thread end early, and wait for that."""
        self._stopped.set()
        if self._work is not None:
            self._thread.join()

    def _run(self) -> None:
        assert self._work is not None
        started = time.perf_counter()
        try:
            self._work(self._check)
        except _StoppedError:
            pass
        except BaseException as error:  # raised by `wait`, in the thread that trains
            self._error = error
        self.seconds = time.perf_counter() - started

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError


def _index_step(callbacks: Mapping[str, Any]) -> int:
    """The step of the index that a checkpoint was made with."""
    return int(callbacks[Reindexing.__name__]["attributes"]["step"])
