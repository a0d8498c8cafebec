"""The requests of OpenAI's clients.  Fields that do not change an answer are not looked at."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragengine_serve.api.options import Options, Several
from ragengine_serve.api.schemas import FILTER, QUESTION, GivenDocument

_TEXT = Annotated[str, Field(max_length=1_000_000)]


class Extra(Options):
    """What OpenAI's names do not say: generation options by their own names, and documents."""

    documents: Several[GivenDocument] | None = None
    doc_pruning: Annotated[float, Field(ge=0, le=1)] | None = None
    filter: FILTER
    adaptive_reading: bool = False


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    include_usage: bool | None = False


class Sampling(BaseModel):
    """What completions and chat completions have in common."""

    model_config = ConfigDict(extra="allow")

    model: _TEXT | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="Above 0 tokens are drawn; 0 or nothing: the model's own search."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ragengine: Extra | None = None


class CompletionRequest(Sampling):
    """OpenAI's completions: each prompt is a question."""

    prompt: _TEXT | Annotated[Several[_TEXT], Field(min_length=1)] = Field(examples=[QUESTION])


class TextPart(BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: _TEXT


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: _TEXT | Several[TextPart] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Sampling):
    """OpenAI's chat completions: the last message of the user is the question."""

    messages: Annotated[Several[Message], Field(min_length=1)] = Field(
        examples=[[{"role": "user", "content": QUESTION}]]
    )
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class EmbeddingsRequest(BaseModel):
    """OpenAI's embeddings."""

    model_config = ConfigDict(extra="allow")

    input: _TEXT | Annotated[Several[_TEXT], Field(min_length=1)] = Field(examples=[QUESTION])
    model: _TEXT | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    input_type: Literal["question", "passage"] = Field(
        "question", description="Which of the model's two encoders reads the input."
    )


UNSUPPORTED: dict[str, Any] = {
    "stop": None, "logit_bias": None, "tools": None, "functions": None, "tool_choice": "none", "best_of": 1,
    "suffix": None, "echo": False, "logprobs": None, "top_logprobs": 0, "frequency_penalty": 0,
    "presence_penalty": 0, "response_format": {"type": "text"}, "dimensions": None,
}  # fmt: skip
"""Fields that ask for what the engine does not do, with the value that asks for nothing."""
