"""transformers' RAG behind FastAPI, as one writes it first: one endpoint, one question at a time.

python -m ragengine_bench.serving.transformers_server CHECKPOINT INDEX PORT THREADS
"""

import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from ragengine_bench.peers.transformers import TransformersRag


class Question(BaseModel):
    """A question, with how it is to be answered."""

    question: str
    num_beams: int = 4
    min_new_tokens: int | None = None
    max_new_tokens: int = 39


def create_app(rag: TransformersRag) -> FastAPI:
    """The application.  Its threads take turns: torch uses all cores for one question."""
    turn = threading.Lock()
    app = FastAPI(telemetry={"auto_configure": False})

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/answer")
    def answer(body: Question) -> dict[str, Any]:
        options = body.model_dump(exclude={"question"}, exclude_none=True)
        with turn:
            return {"answer": rag.ask([body.question], options)["outputs"][0]}

    return app


def main(checkpoint: str, index: str, port: str, threads: str) -> None:
    """Serve until a signal."""
    app = create_app(TransformersRag(checkpoint, index, int(threads), "fp32"))
    uvicorn.run(app, port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
