"""The engines that are compared: their names, their settings, and the work that each leaves out."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_HERE = "ragengine_bench.peers"
_NO_MIXTURE = "D separate beam searches, no marginalisation"
_SEARCHES = {"token": "RAG-Token", "sequence": "RAG-Sequence, thorough"}


PRUNING = 1e-3
"""The prior under which the rows with ``doc_pruning`` leave documents out."""


@dataclass(frozen=True)
class Contender:
    """One row of a table: an engine and the way it is called.

    ``settings`` construct it, ``preparation`` goes with every call of ``prepare``, ``arguments`` with the
    call that is timed; rows of one target with the same settings share a process.  ``shown`` is what the
    report prints of them, ``needs`` are the modules that its environment (``python``, by default this one)
    must have.
    """

    name: str
    target: str
    settings: dict[str, Any]
    shown: str
    preparation: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    does_less: str = ""
    ours: bool = False
    python: str | None = None

    @property
    def process(self) -> tuple[str, str]:
        """Rows with the same one share an engine."""
        return self.target, repr(sorted(self.settings.items()))


def generator(name: str, bundle: Path, threads: int) -> Contender:
    """ragengine's generator, from a bundle."""
    return Contender(
        name,
        f"{_HERE}.ragengine:RagengineGenerator",
        {"bundle": str(bundle), "threads": threads},
        f"onnxruntime, {threads} threads, documents of similar length encoded together",
        ours=True,
    )


def rag(name: str, bundle: Path, index: Path, threads: int) -> Contender:
    """ragengine from text to text."""
    return Contender(
        name,
        f"{_HERE}.ragengine:RagengineRag",
        {"bundle": str(bundle), "index": str(index), "threads": threads},
        f"onnxruntime and faiss, {threads} threads",
        ours=True,
    )


def fewer_documents(engine: Contender, marginalize: str) -> list[Contender]:
    """A whole engine that reads fewer documents (docs/concepts/adaptive-reading.md).

    Adaptive reading is for greedy RAG-Token, so greedy search of all documents stands beside it.
    """
    pruned = replace(
        engine,
        name=f"{engine.name}, doc_pruning {PRUNING:g}",
        arguments={"reading": {"doc_pruning": PRUNING}},
        does_less=f"documents with p(z|x) under {PRUNING:g} are not read",
    )
    if marginalize != "token":
        return [pruned]
    greedy, adaptive = (
        replace(
            engine, name=f"{engine.name}, greedy{how}", arguments={"reading": {"num_beams": 1, **reading}}
        )
        for how, reading in (("", {}), (", adaptive_reading", {"adaptive_reading": True}))
    )
    return [pruned, greedy, adaptive]


def generation_peers(
    checkpoint: Path,
    generator: Path,
    threads: int,
    longest: int,
    marginalize: str,
    pythons: Mapping[str, str],
) -> list[Contender]:
    """The other engines that read token ids and search with beams.

    ``checkpoint`` is a RAG checkpoint, ``generator`` its generator alone, ``longest`` the RAG checkpoint's
    ``max_combined_length``; ``pythons`` has the environments of "optimum" and "openvino", which need their
    own.  Engines that search document by document are compared with RAG-Token only.
    """
    peers = [
        _transformers(checkpoint, threads, dtype, padding, longest, marginalize)
        for dtype in ("fp32", "bf16 autocast")
        for padding in (longest, 0)
    ]
    if marginalize != "token":
        return peers
    peers.append(_transformers(checkpoint, threads, "torch.compile", 0, longest, marginalize))
    peers += [_ctranslate2(generator, threads, compute_type) for compute_type in ("float32", "int8")]
    peers += [
        _optimum(generator, threads, pythons.get("optimum")),
        _openvino(generator, threads, pythons.get("openvino")),
    ]
    return peers


def question_peers(checkpoint: Path, index: Path, threads: int, longest: int) -> list[Contender]:
    """The other engines that answer questions from an index."""
    return [
        Contender(
            f"transformers {dtype}, padded to {longest}",
            f"{_HERE}.transformers:TransformersRag",
            {"checkpoint": str(checkpoint), "index": str(index), "threads": threads, "dtype": dtype},
            f"eager {dtype}, padded to {longest} (as it comes), torch threads {threads}, RagRetriever",
            needs=("torch", "transformers", "datasets"),
        )
        for dtype in ("fp32", "bf16 autocast")
    ]


def matching(peers: Sequence[Contender], words: Sequence[str]) -> list[Contender]:
    """The peers whose name contains one of ``words``; all of them without words."""
    return [peer for peer in peers if not words or any(word.lower() in peer.name.lower() for word in words)]


def _transformers(
    checkpoint: Path, threads: int, dtype: str, pad_to: int, longest: int, marginalize: str
) -> Contender:
    padding = f"padded to {longest}" if pad_to else "padded to the longest"
    how = "torch.compile (dynamic shapes), fp32" if dtype == "torch.compile" else f"eager {dtype}"
    return Contender(
        f"{'' if dtype == 'torch.compile' else 'transformers '}{dtype}, {padding}",
        f"{_HERE}.transformers:TransformersGenerator",
        {"checkpoint": str(checkpoint), "threads": threads, "dtype": dtype, "marginalize": marginalize},
        f"{_SEARCHES[marginalize]}, {how}, {padding}{' (as it comes)' if pad_to else ''}, "
        f"torch threads {threads}",
        {"pad_to": pad_to},
        needs=("torch", "transformers", "datasets"),
    )


def _ctranslate2(generator: Path, threads: int, compute_type: str) -> Contender:
    return Contender(
        f"CTranslate2 {compute_type}",
        f"{_HERE}.ctranslate2:Ctranslate2Generator",
        {"checkpoint": str(generator), "threads": threads, "compute_type": compute_type},
        f"compute_type {compute_type}, inter_threads 1, intra_threads {threads}, unpadded, one batch",
        needs=("ctranslate2", "torch", "transformers"),
        does_less=_NO_MIXTURE,
    )


def _optimum(generator: Path, threads: int, python: str | None) -> Contender:
    file = Path(__file__).with_name("optimum_peers.py")
    return Contender(
        "optimum-onnx fp32",
        f"{file}:OptimumGenerator",
        {"checkpoint": str(generator), "threads": threads},
        f"ORTModelForSeq2SeqLM with a cache, intra_op_num_threads {threads}, its own environment",
        needs=("optimum.onnxruntime", "transformers"),
        does_less=_NO_MIXTURE,
        python=python or sys.executable,
    )


def _openvino(generator: Path, threads: int, python: str | None) -> Contender:
    file = Path(__file__).with_name("optimum_peers.py")
    return Contender(
        "OpenVINO int8",
        f"{file}:OpenvinoGenerator",
        {"checkpoint": str(generator), "threads": threads},
        f"OVModelForSeq2SeqLM, weights in int8, INFERENCE_NUM_THREADS {threads}, its own environment",
        needs=("openvino", "optimum.intel", "transformers"),
        does_less=_NO_MIXTURE,
        python=python or sys.executable,
    )
