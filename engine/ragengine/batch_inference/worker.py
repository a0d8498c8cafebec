"""A process that answers batches of questions: one JSON object a line in, one out.

The first line says what to load; the reply names what the answers depend on.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from ragengine.batch_inference.identity import engine_identity
from ragengine.batch_inference.records import answered_records
from ragengine.engine import RagEngine
from ragengine.errors import RagEngineError
from ragengine.retrieval.sharding.remote.options import RemoteOptions


def main() -> None:
    """Answer until the pipe from the parent is closed, as it also is when the parent is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    requests = sys.stdin.buffer
    try:
        _work(requests, replies)
    except RagEngineError as error:
        _send(replies, {"error": {"type": type(error).__name__, "message": str(error)}})
    except BrokenPipeError:  # the parent was killed: nobody waits for the answers
        os._exit(1)


def _work(requests: BinaryIO, replies: BinaryIO) -> None:
    setup = json.loads(requests.readline())
    settings: Mapping[str, Any] = setup["settings"]
    load = setup["load"]
    if load["remote"] is not None:
        load["remote"] = RemoteOptions(**load["remote"])
    with RagEngine.load(setup["bundle"], index=setup["index"], **load) as engine:
        _send(replies, {"identity": engine_identity(engine, settings)})
        for line in requests:
            records = answered_records(engine, json.loads(line), settings, setup["deadline"])
            _send(replies, {"records": records})


def _send(replies: BinaryIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    replies.flush()
