"""OpenVINO on the generator of a checkpoint: every document is searched by itself, without marginalisation.

optimum-intel pins another transformers, so it runs in an environment of its own (benchmarks/README.md); this
file does not import ragengine.
"""

from typing import Any

import numpy as np
import torch
from optimum.intel import OVModelForSeq2SeqLM


class OpenvinoGenerator:
    """`OVModelForSeq2SeqLM.generate` of D documents for each of Q questions, in one batch."""

    def __init__(self, checkpoint: str, threads: int) -> None:
        """Export with weights in int8 and compile; the load time counts both.

        What it computes in between is left to OpenVINO, which takes bfloat16 where the processor has it.
        """
        torch.set_num_threads(threads)
        self._model = OVModelForSeq2SeqLM.from_pretrained(
            checkpoint, export=True, load_in_8bit=True, ov_config={"INFERENCE_NUM_THREADS": str(threads)}
        )

    def prepare(self, arrays: str, options: dict[str, Any]) -> None:
        """Take ids [Q, D, S] and mask from a file."""
        with np.load(arrays, allow_pickle=False) as given:
            flat = {"input_ids": given["ids"], "attention_mask": given["mask"]}
        self._inputs = {name: torch.tensor(a.reshape(-1, a.shape[2])) for name, a in flat.items()}
        self._options = {name: value for name, value in options.items() if name != "marginalize"}

    def generate(self) -> dict[str, Any]:
        """The best output of every document: Q·D of them."""
        output = self._model.generate(**self._inputs, **self._options)
        return {"outputs": output[:, 1:].tolist()}
