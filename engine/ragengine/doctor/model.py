"""A bundle and an index: whether they are whole, belong together and answer, and where they run."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ragengine.doctor.findings import Finding, gib
from ragengine.runtime.devices import Device

_NAMES_SHOWN = 3
QUESTION = "What is {title}?"


def bundle(path: str | Path, device: Device) -> Iterator[Finding]:
    """Whether it is whole, what it is, how much memory it needs, and where the nodes of its graphs run."""
    from ragengine.bundle.bundle import Bundle
    from ragengine.bundle.device import graph_device

    opened = Bundle.open(path)
    manifest = opened.manifest
    yield Finding("whole", True, f"{len(manifest.files)} files as their manifest says")
    yield Finding("model", manifest.rag.architecture)
    yield Finding("precision", manifest.precision)
    yield from _memory(opened)
    chosen = graph_device(opened, device)
    yield Finding("device", chosen, f"{chosen} (chosen: {device})")
    for name in sorted(_graphs(opened, chosen)):
        yield _nodes(opened.path / name, name, chosen)


def index(path: str | Path, bundle_path: str | Path | None, device: Device) -> Iterator[Finding]:
    """Whether it is whole and belongs to the bundle, and where it is searched."""
    from ragengine.bundle.bundle import Bundle
    from ragengine.retrieval.gpu.searcher import refusal
    from ragengine.retrieval.open_index import open_index

    with open_index(path) as opened:
        yield Finding("whole", True, f"{opened.count:,} passages of {opened.dimension} dimensions")
        yield Finding("factory", opened.manifest.factory)
        if bundle_path is not None:
            opened.check_belongs_to(Bundle.open(bundle_path, verify="size"))
            yield Finding("belongs to the bundle", True, "yes")
        best = opened.best_placement()
        yield Finding(
            "placement",
            {"kind": best.kind, "device": best.device, "bytes": best.bytes, "reason": best.reason},
            str(best),
        )
        if device == "cuda" and not best.on_gpu:
            raise refusal(best)


def answer(bundle_path: str | Path, index_path: str | Path, settings: dict[str, Any]) -> Iterator[Finding]:
    """One question, answered by an engine that is loaded with ``settings``."""
    from ragengine.engine import RagEngine

    # The sections before this one have hashed the files.
    with RagEngine.load(bundle_path, index=index_path, verify="size", **settings) as engine:
        (passage,) = engine.retriever.index.passages([0])
        question = QUESTION.format(title=passage.title or passage.text[:40])
        engine.generate(question)  # the first answer is slower: memory is allocated, graphs are captured
        found = engine.generate(question)
        yield Finding("question", question)
        yield Finding("answer", found.text, found.text.rstrip() or "(no text)")
        yield Finding(
            "ran on",
            {"graphs": engine.device, "search": engine.retriever.index.placement.kind},
            f"graphs: {engine.device}; search: {engine.retriever.index.placement.kind}",
        )
        timings = {name: round(ms, 2) for name, ms in found.timings_ms.items()}
        yield Finding("milliseconds", timings, ", ".join(f"{name} {ms}" for name, ms in timings.items()))


def _memory(opened: Any) -> Iterator[Finding]:
    """The weights, and the working memory of one question with the model's default options."""
    from ragengine.generation.memory import working_bytes
    from ragengine.options import GenerationOptions

    manifest = opened.manifest
    weights = sum(entry.size for name, entry in manifest.files.items() if not name.endswith(".json"))
    options = GenerationOptions.from_dict(manifest.generation)
    source = min(manifest.rag.max_combined_length, manifest.generator.longest)
    working = working_bytes(manifest.generator, options.n_docs, source, options.num_beams, options.max_length)
    yield Finding(
        "memory",
        {"weights": weights, "question": working},
        f"weights {gib(weights)}, and at most {gib(working)} a question of {options.n_docs} documents of "
        f"{source} tokens, {options.num_beams} beams, {options.max_length} tokens",
    )


def _graphs(opened: Any, device: str) -> set[str]:
    """The graphs that run on ``device``: CUDA has another decoder than the CPU."""
    from ragengine.bundle.manifest import STEP_GRAPH

    generator = PurePosixPath(opened.manifest.generator.path)
    unused = generator / ("decoder.onnx" if device == "cuda" else STEP_GRAPH)
    return {name for name in opened.manifest.files if name.endswith(".onnx")} - {str(unused)}


def _nodes(path: Path, name: str, device: str) -> Finding:
    """How many nodes of a graph each provider computes; those that fell back to the CPU are named."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    wanted = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    providers = [wanted] if device == "cpu" else [wanted, "CPUExecutionProvider"]
    session = ort.InferenceSession(str(path), options, providers=providers)
    counts: dict[str, int] = {}
    fallen: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes = part.get_nodes()
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(nodes)
        if part.ep_name != wanted:
            for node in nodes:
                fallen.setdefault(node.op_type, []).append(node.name)
    text = ", ".join(f"{count} nodes on {provider}" for provider, count in sorted(counts.items()))
    if fallen:
        kinds = (f"{kind} ({_first(names)})" for kind, names in sorted(fallen.items()))
        text += f"; fell back to the CPU: {', '.join(kinds)}"
    return Finding(f"nodes of {name}", {"nodes": counts, "fell_to_cpu": fallen}, text)


def _first(names: list[str]) -> str:
    """The first of many names; ``--json`` lists all of them."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
