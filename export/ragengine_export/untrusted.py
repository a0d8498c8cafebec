"""What a checkpoint may not do while it is read: run code, name other files, or claim more than it holds."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragengine.errors import ExportError
from ragengine.messages import short_repr
from ragengine.storage.foreign_files import plain_size, read_plain, shown_path, why

_PARTS = ("question_encoder", "generator")
# transformers allocates something for each, or makes a module of each; beyond any model of these families
_MOST = {
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layers"), 1024),
    **dict.fromkeys(("num_layers", "num_decoder_layers", "num_heads", "n_heads"), 1024),  # T5's, DistilBERT's
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 1024),
    **dict.fromkeys(("d_kv", "d_ff", "relative_attention_num_buckets"), 1 << 20),
    **dict.fromkeys(("relative_attention_max_distance", "decoder_vocab_size"), 1 << 20),
    **dict.fromkeys(("dim", "hidden_dim", "embedding_size"), 1 << 20),
    **dict.fromkeys(("hidden_size", "d_model", "projection_dim", "max_position_embeddings"), 1 << 20),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "type_vocab_size"), 1 << 20),
    "vocab_size": 1 << 24,
    "num_labels": 1 << 20,
}
_TEXTS = ("title_sep", "doc_sep", "prefix")
_WEIGHTS = ("*.safetensors", "*.bin", "*.h5", "*.msgpack")
_READ_WHOLE = (
    *("*config.json", "tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "*.index.json", "*.jinja", "*.model", "*.spm"),
)
_MOST_BYTES = 256 << 20
"""Of a file that is read whole: ten times those of the largest vocabularies."""


def check_files(source: str) -> None:
    """Check what a folder has beside its weights before transformers reads it; a hub's name is left to it.

    Links are followed: the cache of the hub is made of them.

    Raises:
        ExportError: a file is a pipe or a device, or larger than any of its kind.
    """
    folder = Path(source)
    if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises for some names
        return
    found = [
        file for part in (folder, *folder.glob("*/")) for name in _READ_WHOLE for file in part.glob(name)
    ]
    for file in found:
        size = checked_size(file)
        if size > _MOST_BYTES:
            raise ExportError(
                f"{shown_path(file)} has {size} bytes; at most {_MOST_BYTES} are read. Save the model again."
            )


def checked_size(file: Path) -> int:
    """The bytes of a plain file, or one that a link leads to.

    Raises:
        ExportError: it is a pipe, a device or none.
    """
    try:
        return plain_size(file)
    except (OSError, ValueError) as reason:
        raise ExportError(f"{shown_path(file)} cannot be read: {why(reason)}.") from reason


def check_config(source: str, config: dict[str, Any]) -> None:
    """Check the content of a `config.json` before a class is made of it.

    Raises:
        ExportError: it names code, or a size that no model of these families has.
    """
    for part in (config, *(config[name] for name in _PARTS if isinstance(config.get(name), dict))):
        if part.get("auto_map"):
            raise ExportError(
                f"{source} brings code of its own (auto_map in config.json), which is never run; convert it "
                "to an architecture of transformers first."
            )
        for name, value in part.items():
            if name.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
                raise ExportError(
                    f"{source} names code on the hub ({name} is {short_repr(value)}), which is never run; "
                    f"take {name} out of its config.json."
                )
            if name in _TEXTS and isinstance(value, str) and not _is_unicode(value):
                raise ExportError(
                    f"{source} has half a surrogate pair in {name}, which is no Unicode; "
                    "repair its config.json."
                )
            if name in _MOST and isinstance(value, int) and value > _MOST[name]:
                raise ExportError(
                    f"{source} says {name} is {short_repr(value)}; at most {_MOST[name]} is supported. "
                    "Repair its config.json."
                )


def check_weights(source: str, config: Any) -> None:
    """Check a folder before its weights are loaded; a name on the hub is left to transformers.

    Raises:
        ExportError: its index names a file elsewhere, or it is too small for the sizes of its ``config``.
    """
    folder = Path(source)
    if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises for some names
        return
    for index in folder.glob("*.index.json"):
        index_files(index)
    stored = sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern))
    parts = [getattr(config, name, None) for name in _PARTS]
    needed = sum(_fewest_weights(part) for part in parts if part) if any(parts) else _fewest_weights(config)
    if stored and needed > stored:  # a weight takes a byte at least
        raise ExportError(
            f"The config.json of {source} describes {needed:,} weights or more, its files have {stored:,} "
            "bytes; they do not belong together."
        )


def index_files(index: Path) -> list[str]:
    """The names of the files that an index of weights names; each is beside it.

    Raises:
        ExportError: it cannot be read, or names a file elsewhere.
    """
    try:
        content = json.loads(read_plain(index, _MOST_BYTES, links=True))
        names = sorted(set(content["weight_map"].values()), key=repr)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as reason:
        raise ExportError(f"{index} cannot be read as an index of weights; save the model again.") from reason
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ExportError(
                f"{index} names the file {short_repr(name)}; a checkpoint's files are in its own folder."
            )
    return names


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _fewest_weights(config: Any) -> int:
    """How many weights a network of these sizes has at least: embeddings, attention and feed-forward."""
    return sum(_matrices(config))


def _matrices(config: Any) -> Iterator[int]:
    def size(name: str) -> int:
        value = getattr(config, name, 0)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    width = size("d_model")
    if config.model_type in ("t5", "mt5"):
        inner = size("num_heads") * size("d_kv")
        for side, attentions in (("num_layers", 1), ("num_decoder_layers", 2)):
            yield size(side) * (4 * attentions * width * inner + 2 * width * size("d_ff"))
    elif width and size("decoder_layers"):
        for side, attentions in (("encoder", 1), ("decoder", 2)):
            a_layer = 4 * attentions * width * width + 2 * width * size(f"{side}_ffn_dim")
            yield size(f"{side}_layers") * a_layer
    else:
        width = size("hidden_size")
        a_layer = 4 * width * width + 2 * width * size("intermediate_size")
        yield size("num_hidden_layers") * a_layer
    rows = size("vocab_size") + size("type_vocab_size")
    if config.model_type not in ("pegasus", "marian", "modernbert"):  # which store no table of positions
        rows += size("max_position_embeddings")
    yield rows * (size("embedding_size") or width)
