"""Loading configs and weights with transformers, which may run nothing and invent nothing."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import AutoConfig, GenerationConfig, PretrainedConfig

from ragengine.bundle.manifest import FORMAT
from ragengine.errors import ExportError
from ragengine.storage.ownership import MANIFEST
from ragengine.storage.strict_json import read_json
from ragengine_export.conversion.convert import converted_state
from ragengine_export.untrusted import check_config, check_files, check_weights

Loaded = TypeVar("Loaded")
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def loaded(source: str, load: Callable[[str], Loaded]) -> Loaded:
    """Call a transformers loader; its exceptions become one sentence.

    There is no list of them: safetensors, tokenizers and huggingface_hub have types of their own, and some
    are a bare ``Exception``.
    """
    if not os.path.exists(source) and not _HUB_NAME.fullmatch(source):  # noqa: PTH110  # Path.exists raises for some
        raise ExportError(
            f"{source} does not exist; give a checkpoint's folder, or its name on the hub (OWNER/NAME)."
        )
    check_files(source)
    try:
        return load(source)
    except Exception as reason:
        if is_bundle(source):
            raise ExportError(
                f"{source} is a bundle, which is exported already; ragengine unpack writes the checkpoint "
                "that an fp32 or fp16 bundle was exported from."
            ) from reason
        place = "folder" if os.path.exists(source) else "folder or hub name"  # noqa: PTH110  # Path.exists raises for some
        raise ExportError(
            f"{source} is not a {place} transformers can load: {first_sentence(reason)}"
        ) from reason


def is_bundle(source: str) -> bool:
    """Whether a folder is a bundle, by its manifest alone."""
    try:
        content = read_json(Path(source, MANIFEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def first_sentence(reason: BaseException) -> str:
    """The first line of a message, and those after it where it ends in a colon: they say what it is about."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    if not lines:
        return type(reason).__name__
    return " ".join(lines) if lines[0].endswith(":") else lines[0]


def load_config(source: str) -> Any:
    """Read the config of a checkpoint, which has been checked (:mod:`ragengine_export.untrusted`)."""
    content, _ = loaded(source, PretrainedConfig.get_config_dict)
    check_config(source, content)
    return loaded(source, lambda name: AutoConfig.from_pretrained(name, trust_remote_code=False))


def load_model(
    cls: Any, source: str, optional: str | None = None, changes: Mapping[str, Any] | None = None
) -> Any:
    """Load weights in float32 and refuse a checkpoint that lacks some: transformers would invent them.

    TensorFlow's and Flax's weights are converted first (:mod:`ragengine_export.conversion`).

    Args:
        cls: the class of transformers that has the weights.
        source: a folder or hub name.
        optional: the path of a module whose weights may be missing, with a dot at the end; the model then
            has None there.
        changes: fields of its config that are to be other than in the checkpoint.

    Raises:
        ExportError: it cannot be loaded, or weights are missing.
    """
    return load_with_left_over(cls, source, optional, changes)[0]


def load_with_left_over(
    cls: Any, source: str, optional: str | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[Any, list[str]]:
    """As :func:`load_model`, with the names of the weights that ``cls`` has no place for."""
    content, _ = loaded(source, PretrainedConfig.get_config_dict)
    check_config(source, content)
    config = loaded(source, cls.config_class.from_pretrained)
    for name, value in (changes or {}).items():
        setattr(config, name, value)
    check_weights(source, config)
    state = converted_state(source, cls, config, optional=optional)

    def load(name: str) -> Any:
        config.return_dict = True  # configs of transformers 3 say False
        for part in ("question_encoder", "generator"):  # a RAG model makes its parts in what they name
            if hasattr(config, part):
                getattr(config, part).dtype = torch.float32
                getattr(config, part).return_dict = True
        # weights_only: a .bin file is a pickle, and a pickle is a program
        return cls.from_pretrained(
            name if state is None else None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            weights_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )

    model, info = loaded(source, load)
    if state is not None and model.can_generate():
        model.generation_config = loaded(source, _generation_config)
    missing = sorted(set(info["missing_keys"]) - (_computed(cls, config) if info["missing_keys"] else set()))
    if optional and missing and all(key.startswith(optional) for key in missing):
        inside, _, name = optional.rstrip(".").rpartition(".")
        setattr(model.get_submodule(inside), name, None)
        missing = []
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ExportError(
            f"{source} has no weights for {shown}; it is not a whole {cls.__name__} checkpoint."
        )
    return model.eval(), list(info["unexpected_keys"])


def _computed(cls: Any, config: Any) -> set[str]:
    """What a class makes by itself, and older releases did not save: Pegasus' and Marian's sinusoids."""
    with torch.device("meta"):
        model = cls(config)
    return {name for name, weight in model.named_parameters() if not weight.requires_grad}


def _generation_config(source: str) -> GenerationConfig:
    """The generation defaults of a folder, as ``from_pretrained`` finds them beside weights that it reads."""
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return GenerationConfig.from_pretrained(
            source, config_file_name="config.json", _from_model_config=True
        )


def torch_state(module: torch.nn.Module) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The weights of a module by name, float32."""
    return {
        name: t.detach().float().numpy() for name, t in module.state_dict().items() if t.is_floating_point()
    }
