"""Encoders of questions and passages: the checkpoint's network, and the way from its states to a vector."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from tokenizers.normalizers import BertNormalizer, Lowercase, Sequence
from transformers import DPRContextEncoder, DPRQuestionEncoder, PreTrainedModel, PreTrainedTokenizerBase

from ragengine.errors import ExportError
from ragengine_export.choices import GIVEN_POOLINGS, GivenPooling
from ragengine_export.encoder_families import ENCODERS, encoder_family, encoder_shape
from ragengine_export.graphs.bert import BertEncoder
from ragengine_export.graphs.text_encoder import DenseShape, EncoderShape, HeadShape, TextEncoder
from ragengine_export.loading import load_config, load_model, torch_state
from ragengine_export.sentence_folder import SentenceFolder, Similarity, read_sentence_folder
from ragengine_export.tokenization import load_fast_tokenizer
from ragengine_export.weights import State, fingerprint

Side: TypeAlias = Literal["question", "passage"]

_DPR: Final[Mapping[Side, type[PreTrainedModel]]] = {
    "question": DPRQuestionEncoder,
    "passage": DPRContextEncoder,
}
_USUAL: Final = {
    "family": "bert",
    "pooling": ("cls",),
    "steps": [],
    "skipped": 0,
    "similarity": "inner_product",
    "prompt": "",
    "passages": "pair",
}
"""What DPR's encoders do, and what a fingerprint therefore does not say."""


@dataclass(frozen=True)
class EncoderCheckpoint:
    """A question or passage encoder.

    model       its torch model
    shape       sizes of its graph
    state       its weights by the graph's names
    tokenizer   its tokenizer
    similarity  how its vectors are compared
    prompt      what comes before each text
    passages    how title and text of a passage are read
    max_length  the longest text in tokens
    folder      the sentence-transformers folder that it comes from, if it does
    """

    name: str
    model: PreTrainedModel
    shape: EncoderShape
    state: State
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    similarity: Similarity = "inner_product"
    prompt: str = ""
    passages: Literal["pair", "joined"] = "pair"
    folder: SentenceFolder | None = None

    @property
    def pools_as_given(self) -> bool:
        """Whether it is a bare model, whose pooling nothing in its folder says."""
        return self.folder is None and self.model.config.model_type != "dpr"

    def graph(self, shape: EncoderShape) -> TextEncoder:
        """Its graph, with ``shape`` in some precision."""
        family = self.model.config.model_type
        return BertEncoder(shape) if family == "dpr" else ENCODERS[family].graph(shape)  # type: ignore[arg-type]  # that family's shape

    @property
    def weights(self) -> State:
        """The tensors that its graph reads; a checkpoint may hold others."""
        names = dict(self.graph(self.shape).named_parameters())
        return {name: self.state[name] for name in names if name in self.state}

    @property
    def fingerprint(self) -> str:
        """Identifies the vectors: the weights, and all else that decides them where it is not DPR's way."""
        family, head = self.model.config.model_type, self.shape.head
        steps = [] if self.folder is None else head.steps
        said = {
            "family": "bert" if family == "dpr" else family,
            "pooling": head.pooling,
            "steps": [step if isinstance(step, str) else (step.name, step.activation) for step in steps],
            "skipped": head.skipped,
            "similarity": self.similarity,
            "prompt": self.prompt,
            "passages": self.passages,
        }
        return fingerprint(self.weights, {n: value for n, value in said.items() if value != _USUAL[n]})


def load_encoder(source: str, side: Side, pooling: GivenPooling | None = None) -> EncoderCheckpoint:
    """Load an encoder: a DPR encoder, a sentence-transformers folder, or a bare model with a ``pooling``.

    Args:
        source: a folder or hub name.
        side: what it encodes.
        pooling: how a bare model pools.

    Raises:
        ExportError: it cannot be loaded, or does not say how it pools.
    """
    folder = read_sentence_folder(source)
    place = source if folder is None else folder.transformer
    kind = load_config(place).model_type
    if kind == "dpr" and folder is None:
        model = load_model(_DPR[side], place)
    else:
        model = load_model(encoder_family(source, kind).model, place, optional="pooler.")
    tokenizer = load_fast_tokenizer(place)
    if folder is None:
        return encoder_of(source, model, tokenizer, pooling)
    if folder.lower_case:
        lower_case(tokenizer)
    shape = encoder_shape(source, model.config, HeadShape(folder.pooling, folder.steps))
    state = encoder_family(source, kind).renamed(torch_state(model)) | dict(folder.state)
    longest = folder.max_length or int(min(tokenizer.model_max_length, shape.max_tokens))
    encoder = EncoderCheckpoint(
        name=source,
        model=model,
        shape=shape,
        state=state,
        tokenizer=tokenizer,
        max_length=min(longest, shape.max_tokens),
        similarity=folder.similarity,
        passages="joined",
        folder=folder,
    )
    return for_side(encoder, side)


def for_side(encoder: EncoderCheckpoint, side: Side) -> EncoderCheckpoint:
    """The encoder of a sentence-transformers folder for questions or for passages, which differ by prompt."""
    folder = encoder.folder
    if folder is None:
        return encoder
    prompt = folder.question_prompt if side == "question" else folder.passage_prompt
    skipped = 0 if folder.include_prompt or not prompt else _prompt_tokens(encoder.tokenizer, prompt)
    if skipped >= encoder.max_length:
        raise ExportError(
            f"The prompt {prompt!r} of {encoder.name} has {skipped} tokens, and its longest text "
            f"{encoder.max_length}; no text would be left."
        )
    head = replace(encoder.shape.head, skipped=skipped)
    return replace(encoder, prompt=prompt, shape=replace(encoder.shape, head=head))


def encoder_of(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pooling: GivenPooling | None = None,
) -> EncoderCheckpoint:
    """A DPR encoder, or a bare model with a ``pooling``, that is loaded already; as :func:`load_encoder`."""
    config = model.config
    if config.model_type == "dpr":
        head, state = _dpr_head(model)
    else:
        family = encoder_family(name, config.model_type)
        head = _given_head(name, model, pooling)
        state = family.renamed(torch_state(model))
    shape = encoder_shape(name, config, head)
    longest = int(min(shape.max_tokens, tokenizer.model_max_length))
    return EncoderCheckpoint(name, model, shape, state, tokenizer, longest)


def _dpr_head(model: PreTrainedModel) -> tuple[HeadShape, dict[str, np.ndarray[Any, Any]]]:
    """The first token's state, projected where the checkpoint has a projection; and the weights."""
    inner = getattr(model, "question_encoder", None) or model.ctx_encoder
    state, projection = torch_state(inner.bert_model), getattr(inner, "encode_proj", None)
    if projection is None:
        return HeadShape(("cls",)), state
    weights = {f"encode_proj.{name}": values for name, values in torch_state(projection).items()}
    dense = DenseShape("encode_proj", projection.in_features, projection.out_features, True, "")
    return HeadShape(("cls",), (dense,)), state | weights


def _given_head(name: str, model: PreTrainedModel, pooling: GivenPooling | None) -> HeadShape:
    kind, width = model.config.model_type, model.config.hidden_size
    if pooling is None:
        raise ExportError(
            f"{name} is a bare {kind} model: nothing in its folder says how the states of a text become one "
            "vector, as DPR's head or sentence-transformers' modules.json does, and a wrong way just "
            f"finds worse passages; say it with --pooling, one of {', '.join(GIVEN_POOLINGS)}."
        )
    if pooling != "pooler":
        return HeadShape((pooling,))
    if getattr(getattr(model, "pooler", None), "dense", None) is None:
        raise ExportError(f"{name} has no weights of a pooler; choose another --pooling than pooler.")
    return HeadShape(("cls",), (DenseShape("pooler.dense", width, width, True, "tanh"),))


def lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lower-case texts first, where the tokenizer's rules do not, as `sentence_transformers.Transformer`."""
    backend = tokenizer.backend_tokenizer
    rules = backend.normalizer
    own: list[Any] = [] if rules is None else [rules]
    if isinstance(rules, Sequence):
        own = list(rules)  # type: ignore[call-overload]  # it has __getitem__ and no __iter__
    if isinstance(rules, BertNormalizer) and rules.lowercase:
        return  # twice would be the same
    if not any(isinstance(rule, Lowercase) for rule in own):
        backend.normalizer = Sequence([Lowercase(), *own])


def _prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    """Its tokens without a special one at the end, as `Transformer._get_prompt_length`."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)
