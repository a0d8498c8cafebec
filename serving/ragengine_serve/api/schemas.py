"""The JSON of requests and responses, for checks and for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ragengine import Document
from ragengine_serve.api.options import Options, Several, Strict

QUESTION = "What is the capital of Iceland?"
EXAMPLES: list[JsonValue] = [
    {"question": QUESTION},
    {"question": QUESTION, "num_beams": 1, "stream": True},
    {
        "question": "Who wrote the report?",
        "documents": [{"title": "Report", "text": "The report was written by Ada.", "score": 1.0}],
    },
]
_TEXT = Annotated[str, Field(max_length=1_000_000)]


_VALUE = str | int | float | bool
FILTER = Annotated[
    dict[str, _VALUE | Annotated[Several[_VALUE], Field(min_length=1)]] | None,
    Field(
        None,
        description="Search only passages whose metadata has these values, each field one of them.",
        examples=[{"owner": "data"}],
    ),
]


class GivenDocument(Strict):
    """A document of the caller's own."""

    text: _TEXT
    title: _TEXT = ""
    id: _TEXT = ""
    score: float | None = Field(
        None, description="q(x)·d(z); computed by the passage encoder if none has one."
    )
    metadata: dict[_TEXT, _TEXT] = Field(
        {}, description="What else is known of it; it comes back in the answer."
    )

    def document(self) -> Document:
        """As the engine takes it."""
        return Document(self.title, self.text, self.id, self.score, metadata=self.metadata)


class Request(Strict):
    """What every request may say."""

    model: _TEXT | None = Field(None, description="One of /v1/models; the first if not given.")
    deadline_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        None, description="Milliseconds after which no answer is wanted any more (504)."
    )


class OneOrMany(Request):
    """A request with a question, or a list of them that is answered with a list."""

    question: _TEXT | Annotated[Several[_TEXT], Field(min_length=1)] = Field(examples=[QUESTION])


class Reading(OneOrMany, Options):
    """A request about documents that are read: found for the question, or given."""

    documents: Several[GivenDocument] | Several[Several[GivenDocument]] | None = Field(
        None, description="Documents to read instead of searching; for a list of questions a list each."
    )
    doc_pruning: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Do not read documents whose prior p(z | x) is less than this."
    )
    filter: FILTER


class AnswerRequest(Reading):
    """A question, and any generation option by its name."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})
    stream: bool = Field(False, description="Send server-sent events: documents, token, final or error.")
    abstain: bool = Field(
        False,
        description="Send no text where the confidence is low; needs a calibrated index, and no stream.",
    )
    adaptive_reading: bool = Field(
        False,
        description="Read no more documents than the tokens need: for greedy RAG-Token, and no stream.",
    )


class RetrieveRequest(OneOrMany):
    """A question whose documents are wanted."""

    n_docs: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Documents; the model's number if not given."
    )
    filter: FILTER


class ScoreRequest(Reading):
    """A question with an answer whose log-probability is wanted."""

    answer: _TEXT | Several[Any] = Field(
        description=(
            "A text or token ids; for a list of questions a list with one of either each.  A text is "
            "tokenised as it stands, and most models have learned answers with a space in front: "
            "`raw_answer` of /v1/answer shows which."
        ),
        examples=[" Reykjavik"],
    )
    with_bos: bool | None = Field(None, description="Whether a text begins with the BOS token.")


class ClassifyRequest(Reading):
    """A claim or question, and the labels to choose from."""

    question: _TEXT = Field(examples=["Reykjavik is the capital of Iceland."])
    labels: Annotated[Several[_TEXT], Field(min_length=1)] = Field(
        description="Texts, tokenised as they stand, like `answer` of /v1/score.",
        examples=[[" supports", " refutes"]],
    )
    documents: Several[GivenDocument] | None = None
    with_bos: bool | None = None


class Passage(Strict):
    """A passage to embed."""

    text: _TEXT
    title: _TEXT = ""


class EmbedRequest(Request):
    """Questions or passages; one of the two."""

    question: _TEXT | Annotated[Several[_TEXT], Field(min_length=1)] | None = Field(None, examples=[QUESTION])
    passages: Annotated[Several[Passage], Field(min_length=1)] | None = None


class SwapRequest(Strict):
    """The index to answer from."""

    path: _TEXT = Field(description="An index folder, by its path below the server's --index-root.")
    model: _TEXT | None = None


class FoundDocument(BaseModel):
    """A document that was found or read."""

    id: str
    title: str
    text: str
    doc_score: float | None
    prior: float | None
    posterior: float | None
    metadata: dict[str, str]


class AnswerToken(BaseModel):
    """A token of the answer with its posterior over the documents."""

    id: int
    text: str
    posterior: list[float]
    log_prob: float | None
    entropy: float


class Alternative(BaseModel):
    """One output of the search; the first is the answer."""

    answer: str
    score: float | None
    log_prob: float | None


class Citation(BaseModel):
    """A part of the answer, and the sentence of a document that its words are copied from."""

    document: int
    start: int
    end: int
    text: str
    sentence_start: int
    sentence_end: int
    sentence: str
    answer_start: int
    answer_end: int


class AnswerReply(BaseModel):
    """What `ragengine ask --json` prints; ``timings_ms`` begins with the time in the queue."""

    question: str
    answer: str
    score: float | None
    documents: list[FoundDocument]
    tokens: list[AnswerToken]
    flags: list[str]
    timings_ms: dict[str, float]
    log_prob: float | None
    pruned_documents: list[FoundDocument]
    hypotheses: list[Alternative]
    raw_answer: str
    citations: list[Citation]
    confidence: float | None
    answerability: float | None
    notes: list[str]
    missing_shards: list[str] = []


class RetrieveReply(BaseModel):
    """The documents of a question, best first."""

    question: str
    documents: list[FoundDocument]
    timings_ms: dict[str, float]
    missing_shards: list[str] = []


class ScoreReply(BaseModel):
    """log p(y | x) of an answer, in nats."""

    question: str
    answer: str | list[int]
    log_prob: float | None


class ClassifyReply(BaseModel):
    """p(label | x) over the labels, in their order."""

    question: str
    probabilities: dict[str, float]


class EmbedReply(BaseModel):
    """Vectors, a list each."""

    vectors: list[list[float]]
    dimension: int


class Fault(BaseModel):
    """What went wrong; ``param`` and ``code`` repeat field and type under OpenAI's names."""

    type: str
    message: str
    field: str | None
    param: str | None
    code: str


class ErrorReply(BaseModel):
    """Every answer that is not what was asked for."""

    error: Fault


class InferenceFault(BaseModel):
    """What went wrong, as KServe's clients read it."""

    error: str
    type: str
    field: str | None


class Health(BaseModel):
    """Whether the server lives, or is ready."""

    status: Literal["ok", "loading", "draining"]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": description}
    for status, description in {
        400: "The request cannot be used.",
        401: "The key is missing or wrong.",
        404: "There is no such model.",
        408: "The request came too slowly.",
        413: "The body is too long.",
        415: "The body is not JSON.",
        422: "A field is missing, unknown, or of a wrong type.",
        429: "The queue is full; Retry-After says when to come again.",
        500: "The server failed.",
        503: "The models are loading, or the server is draining.",
        504: "The deadline has passed.",
    }.items()
}
