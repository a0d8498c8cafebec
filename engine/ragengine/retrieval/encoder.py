"""The DPR encoders: d(z) of a passage and q(x) of a question (paper, section 2.2)."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragengine.bundle import Bundle, EncoderSpec
from ragengine.errors import BundleError, GraphOutputError
from ragengine.sessions import Device, InferenceSession, create_session, resolve_device
from ragengine.text import Encoded, Tokenizer

FloatArray: TypeAlias = NDArray[np.float32]


class TextEncoder:
    """A BERT encoder of texts to vectors, from a bundle.  Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, session: InferenceSession, spec: EncoderSpec) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self._session = session

    @classmethod
    def load(
        cls, bundle: Bundle, spec: EncoderSpec, *, device: Device = "auto", threads: int | None = None
    ) -> "TextEncoder":
        """Load the encoder that ``spec`` (of this bundle's manifest) describes."""
        tokenizer = Tokenizer(bundle.file(spec.path, "tokenizer.json"), spec.tokenizer)
        session = create_session(
            bundle.file(spec.path, "encoder.onnx"), device=resolve_device(device), threads=threads
        )
        dimension = session.get_outputs()[0].shape[-1]
        if dimension != spec.dimension:
            raise BundleError(
                f"{bundle.path}: {spec.path}/encoder.onnx gives vectors of {dimension} numbers, "
                f"its manifest says {spec.dimension}; export the bundle again."
            )
        return cls(tokenizer, session, spec)

    @property
    def dimension(self) -> int:
        """E, the number of components of a vector."""
        return self.spec.dimension

    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> FloatArray:
        """d(z) of (title, text) pairs, read as ``[CLS] title [SEP] text [SEP]``: float32 [N, E]."""
        return self.encode_tokens(self.tokenizer.encode(passages))

    def encode_tokens(self, texts: Sequence[Encoded]) -> FloatArray:
        """Vectors of texts that are tokens already, in one batch: float32 [N, E]."""
        input_ids, attention_mask = self.tokenizer.pad([text.ids for text in texts])
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors: FloatArray = self._session.run(["vectors"], feeds)[0]
        if not np.isfinite(vectors).all():
            raise GraphOutputError(f"The encoder {self.spec.name} returned NaN or infinite numbers.")
        return vectors
