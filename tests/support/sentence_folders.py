"""Folders of sentence-transformers with random small models, written without the library.

Weights come from numpy, whose generator gives the same numbers everywhere: what the library made of the same
folders once is recorded (``tests/export/sentence_vectors``).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WIDTH = 12
WORDS = [
    "query",
    "passage",
    ":",
    ".",
    ",",
    "'",
    "?",
    "the",
    "an",
    "is",
    "in",
    "of",
    "it",
    "who",
    "wrote",
    "what",
]
WORDS += ["iceland", "island", "north", "book", "peru", "sea", "origin", "species", "a", "s", "##s", "##land"]
QUESTIONS = ["who wrote the origin of species?", "  What is Iceland ", "<pad> it's [SEP] the </s> sea"]
PASSAGES = [
    ("Iceland", "an island in the north, in the sea."),
    ("", "a book"),
    ("Peru", " ".join(["the sea of the north is in it"] * 12)),
]


_CLASSES: dict[str, tuple[Any, Any]] = {
    "bert": (BertModel, BertConfig),
    "roberta": (RobertaModel, RobertaConfig),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig),
    "distilbert": (DistilBertModel, DistilBertConfig),
    "electra": (ElectraModel, ElectraConfig),
    "mpnet": (MPNetModel, MPNetConfig),
    "modernbert": (ModernBertModel, ModernBertConfig),
}


@dataclass(frozen=True)
class SentenceModel:
    """What a folder is made of: its family, the modules behind the transformer, and its settings."""

    family: str
    pooling: dict[str, Any] = field(default_factory=lambda: {"pooling_mode": "mean"})
    modules: tuple[Any, ...] = ()
    """Behind the pooling: ``"Normalize"``, or the config of a Dense layer."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `config_sentence_transformers.json`."""
    transformer: dict[str, Any] = field(default_factory=dict)
    """Of `sentence_bert_config.json`."""
    tokenizer: dict[str, Any] = field(default_factory=dict)
    old: bool = False
    """Whether names and places are those of the library before its version 5."""


E5 = {"prompts": {"query": "query: ", "passage": "passage: "}, "similarity_fn_name": "cosine"}
DENSE = {"in_features": WIDTH, "out_features": 7, "bias": True}
MODELS: dict[str, SentenceModel] = {
    "bert, mean": SentenceModel("bert", modules=("Normalize",), transformer={"max_seq_length": 16}),
    "bert, cls and dense": SentenceModel("bert", {"pooling_mode": "cls"}, modules=(DENSE,)),
    "bert, old flags": SentenceModel(
        "bert",
        {
            "word_embedding_dimension": WIDTH,
            "pooling_mode_cls_token": True,
            "pooling_mode_max_tokens": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_mean_sqrt_len_tokens": True,
            "pooling_mode_weightedmean_tokens": True,
            "pooling_mode_lasttoken": True,
        },
        old=True,
    ),
    "bert, all poolings": SentenceModel(
        "bert",
        {"pooling_mode": ["lasttoken", "weightedmean", "mean_sqrt_len_tokens", "max", "cls", "mean"]},
        modules=("Normalize", DENSE | {"in_features": 6 * WIDTH, "bias": False}, "Normalize"),
    ),
    "bert, prompts": SentenceModel("bert", modules=("Normalize",), settings=E5),
    "bert, prompts that do not count": SentenceModel(
        "bert",
        {"pooling_mode": ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
         "include_prompt": False},
        settings=E5 | {"similarity_fn_name": "dot"},
    ),
    "bert, two layers": SentenceModel(
        "bert",
        {"pooling_mode": "max"},
        modules=(
            DENSE | {"activation_function": "torch.nn.modules.activation.GELU"},
            DENSE | {"in_features": 7, "activation_function": "torch.nn.modules.linear.Identity"},
        ),
        settings={"similarity_fn_name": "dot"},
    ),
    "bert, lower-cased": SentenceModel(
        "bert", transformer={"do_lower_case": True}, tokenizer={"lowercase": False}, old=True
    ),
    "bert, cut on the left": SentenceModel(
        "bert", transformer={"max_seq_length": 9}, tokenizer={"truncation_side": "left"}
    ),
    "roberta": SentenceModel("roberta", {"pooling_mode": "weightedmean"}, transformer={"max_seq_length": 30}),
    "xlm-roberta, E5": SentenceModel(
        "xlm-roberta", modules=("Normalize",), settings=E5, transformer={"max_seq_length": 50}
    ),
    "distilbert": SentenceModel("distilbert", {"pooling_mode": "mean_sqrt_len_tokens"}),
    "electra": SentenceModel("electra", {"pooling_mode": "max"}),
    "mpnet": SentenceModel("mpnet", modules=("Normalize",), transformer={"max_seq_length": 40}),
    "modernbert": SentenceModel("modernbert", {"pooling_mode": "cls"}, settings=E5),
}  # fmt: skip


def write_sentence_folder(folder: Path, model: SentenceModel) -> Path:
    """Write the folder that ``model`` describes."""
    rng = np.random.default_rng(sorted(MODELS).index(name) if (name := _name(model)) else 0)
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(model.family, **model.tokenizer)
    network = make_encoder(model.family, len(tokenizer), rng)
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    place = "sentence_transformers.models." if model.old else "sentence_transformers.base.modules."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH} | model.pooling)
    for number, module in enumerate(model.modules, 2):
        kind = module if isinstance(module, str) else "Dense"
        modules.append((f"{number}_{kind}", kind))
        if kind == "Dense":
            tanh = {"activation_function": "torch.nn.modules.activation.Tanh"}
            _write_dense(folder / f"{number}_Dense", tanh | module, rng)
        else:
            (folder / f"{number}_{kind}").mkdir()
    pooling_place = place if model.old else "sentence_transformers.sentence_transformer.modules."
    listed = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": (pooling_place if kind == "Pooling" else place)
            + (kind if model.old else f"{kind.lower()}.{kind}"),
        }
        for number, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if model.transformer:
        _write(folder / "sentence_bert_config.json", model.transformer)
    if model.settings:
        _write(folder / "config_sentence_transformers.json", model.settings)
    return folder


def make_encoder(family: str, vocab_size: int, rng: np.random.Generator, **sizes: Any) -> PreTrainedModel:
    """A random small encoder of a family; every weight is a number of its own."""
    given: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    given |= {"intermediate_size": 17, "max_position_embeddings": 64, "hidden_act": "gelu", **sizes}
    given["vocab_size"] = vocab_size
    if family == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        names |= {"intermediate_size": "hidden_dim", "hidden_act": "activation"}
        given = {names.get(name, name): value for name, value in given.items()}
    elif family == "modernbert":
        special = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        given |= dict(zip(special, (0, 2, 3, 2, 3), strict=True)) | {"local_attention": 6}
        given |= {"num_hidden_layers": 4, "hidden_activation": given.pop("hidden_act")}
    elif family == "electra":
        given["embedding_size"] = 8
    elif family in ("roberta", "xlm-roberta"):
        given["pad_token_id"] = 1
    model_class, config_class = _CLASSES[family]
    model = model_class(config_class(**given))
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            numbers = rng.standard_normal(parameter.shape).astype(np.float32) * 0.35
            norm = parameter.ndim == 1 and bool((parameter == 1).all())
            parameter.copy_(torch.tensor(numbers + (1 if norm else 0)))
    return model.eval()


def make_tokenizer(family: str, *, lowercase: bool = True, **settings: Any) -> PreTrainedTokenizerFast:
    """WordPiece, byte-level BPE without merges, or SentencePiece's Unigram, as the family has it."""
    if family == "roberta":
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate([*special, *letters])}
        backend = Tokenizer(models.BPE(vocabulary, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    elif family == "xlm-roberta":
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        pieces = ["\u2581", *(f"\u2581{word}" for word in WORDS if word.isalpha())]
        pieces += sorted({letter for word in [*WORDS, "ABCDEFIPW[]<>/"] for letter in word})
        scored = [(token, 0.0) for token in special] + [
            (token, -float(len(token) == 1) * 9 - 1) for token in pieces
        ]
        backend = Tokenizer(models.Unigram(scored, unk_id=3))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = sorted({letter for word in WORDS for letter in word.strip("#")} | set("[]<>/"))
        words = dict.fromkeys([*special, *WORDS, *letters, *(f"##{letter}" for letter in letters)])
        backend = Tokenizer(
            models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
        )
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, **settings)


def _name(model: SentenceModel) -> str:
    return next((name for name, one in MODELS.items() if one is model), "")


def _write_dense(folder: Path, config: dict[str, Any], rng: np.random.Generator) -> None:
    _write(folder / "config.json", config)
    shape = config["out_features"], config["in_features"]
    state = {"linear.weight": rng.standard_normal(shape).astype(np.float32) * 0.5}
    if config["bias"]:
        state["linear.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    save_file(state, folder / "model.safetensors")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
