"""optimum-onnx and OpenVINO on the generator of a checkpoint: every document by itself, no marginalisation.

Each pins another transformers, so each runs in an environment of its own (benchmarks/README.md); this file
does not import ragengine.
"""

from typing import Any

import numpy as np
import torch


class _Seq2SeqPeer:
    """`generate` of D documents for each of Q questions, in one batch."""

    def __init__(self, model: Any) -> None:
        self._model = model

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


class OptimumGenerator(_Seq2SeqPeer):
    """`ORTModelForSeq2SeqLM` in float32."""

    def __init__(self, checkpoint: str, threads: int) -> None:
        """Export with a cache and load; the load time counts both."""
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSeq2SeqLM

        torch.set_num_threads(threads)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        super().__init__(
            ORTModelForSeq2SeqLM.from_pretrained(
                checkpoint, export=True, use_cache=True, session_options=session
            )
        )


class OpenvinoGenerator(_Seq2SeqPeer):
    """`OVModelForSeq2SeqLM` with weights in int8.

    What it computes in between is left to OpenVINO, which takes bfloat16 where the processor has it.
    """

    def __init__(self, checkpoint: str, threads: int) -> None:
        """Export and compile; the load time counts both."""
        from optimum.intel import OVModelForSeq2SeqLM

        torch.set_num_threads(threads)
        super().__init__(
            OVModelForSeq2SeqLM.from_pretrained(
                checkpoint, export=True, load_in_8bit=True, ov_config={"INFERENCE_NUM_THREADS": str(threads)}
            )
        )
