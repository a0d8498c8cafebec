"""CTranslate2 on a checkpoint's generator: every document is searched by itself, without marginalisation."""

import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters.transformers import BartLoader, MBartLoader, T5Loader
from transformers import AutoModelForSeq2SeqLM

_LOADERS = {"bart": BartLoader, "mbart": MBartLoader, "t5": T5Loader}
# Whether layer norms come first: CTranslate2 reads a field of the config that transformers 5 has dropped.
_NORMALIZE_BEFORE = {"bart": False, "mbart": True}
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


class Ctranslate2Generator:
    """`Translator.translate_batch` of D documents for each of Q questions, in one batch."""

    def __init__(self, checkpoint: str, threads: int, compute_type: str) -> None:
        """Convert, quantise and load; the load time counts all of it."""
        with tempfile.TemporaryDirectory() as folder:
            model = str(Path(folder) / "model")
            self._names = _convert(checkpoint, model, None if compute_type == "float32" else compute_type)
            self._translator = ctranslate2.Translator(
                model, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
            )

    def prepare(self, arrays: str, options: dict[str, Any]) -> None:
        """Take ids [Q, D, S] and mask from a file; CTranslate2 reads tokens by name."""
        with np.load(arrays, allow_pickle=False) as given:
            ids, mask = given["ids"], given["mask"]
        rows = zip(ids.reshape(-1, ids.shape[2]), mask.reshape(-1, ids.shape[2]), strict=True)
        self._source = [[self._names[token] for token in row[seen != 0].tolist()] for row, seen in rows]
        self._options = options

    def generate(self) -> dict[str, Any]:
        """The best output of every document: Q·D of them."""
        steps = self._options["max_length"] - 1  # the start token is not decoded
        found = self._translator.translate_batch(
            self._source,
            beam_size=self._options["num_beams"],
            max_decoding_length=steps,
            min_decoding_length=steps,
            max_input_length=0,
        )
        return {"outputs": [one.hypotheses[0] for one in found]}


def _convert(checkpoint: str, target: str, quantization: str | None) -> list[str]:
    """What `TransformersConverter` does, with token names of our own: the names by token id."""
    model = AutoModelForSeq2SeqLM.from_pretrained(
        checkpoint, dtype=torch.float32, trust_remote_code=False
    ).eval()
    kind = model.config.model_type
    if kind in _NORMALIZE_BEFORE:
        model.config.normalize_before = _NORMALIZE_BEFORE[kind]
        model.config.normalize_embedding = True
    with torch.no_grad():
        spec = _LOADERS[kind]().get_model_spec(model)
    names = _names(model)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token, _, spec.config.eos_token, spec.config.unk_token = _SPECIAL
    spec.config.decoder_start_token = names[model.generation_config.decoder_start_token_id]
    spec.validate()
    spec.optimize(quantization=quantization)
    Path(target).mkdir()
    spec.save(target)
    return names


def _names(model: Any) -> list[str]:
    """A name for every token: CTranslate2 finds the end, the pad and the unknown token by theirs."""
    names = [f"t{token}" for token in range(model.config.vocab_size)]
    special = {"</s>": model.config.eos_token_id, "<pad>": model.config.pad_token_id}
    free = (token for token in range(model.config.vocab_size) if token not in special.values())
    for name, token in {**special, "<s>": next(free), "<unk>": next(free)}.items():
        names[token] = name
    return names
