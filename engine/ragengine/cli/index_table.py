"""What ``ragengine index`` prints about an index."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragengine.retrieval.manifest import IndexManifest

_SHARDS_SHOWN = 8


def print_manifest(index: str, manifest: "IndexManifest") -> None:
    """Print the manifest of the index folder ``index`` as a table."""
    from rich.filesize import decimal
    from rich.table import Table

    from ragengine.cli.console import SafeConsole, line
    from ragengine.retrieval.history import described
    from ragengine.retrieval.open_index import describe_placement

    encoder, tuning = manifest.encoder, manifest.tuning
    n_docs = 5 if tuning is None else tuning.n_docs
    rows = {
        "passages": f"{manifest.count:,}",
        "dimension": str(manifest.dimension),
        "shards": _shards(manifest),
        "metric": manifest.metric.replace("_", " "),
        "factory": manifest.factory,
        "reason": manifest.reason or "not recorded",
        "search settings": _settings(manifest.search) or "none",
        "placement": describe_placement(index),
        f"recall@{n_docs}": _recall(manifest),
        "one search": f"{manifest.timings['search_ms']:.2f} ms" if "search_ms" in manifest.timings else "",
        "encoder": f"{encoder.name} ({encoder.kind.replace('_', ' ')}, {encoder.fingerprint[:12]})",
        "made by": manifest.created_by,
        "made from": described(manifest.created_from),
        "made in": ", ".join(
            f"{name.removesuffix('_s')} {seconds:.1f} s"
            for name, seconds in manifest.timings.items()
            if name.endswith("_s")
        ),
        **{
            name: f"{decimal(entry.size)}, {entry.size / manifest.count:.1f} bytes a passage"
            for name, entry in manifest.files.items()
            if manifest.count
        },
    }
    table = Table(title=line(str(index)), show_header=False, title_justify="left")
    for name, value in rows.items():
        if value:
            table.add_row(line(name), line(value))
    SafeConsole().print(table)


def _shards(manifest: "IndexManifest") -> str:
    """How many shards there are, and passages in each; nothing of an index in one folder."""
    shards = getattr(manifest, "shards", ())
    counts = ", ".join(f"{shard.count:,}" for shard in shards[:_SHARDS_SHOWN])
    more = " and more" if len(shards) > _SHARDS_SHOWN else ""
    return f"{len(shards)} ({counts}{more} passages)" if shards else ""


def _recall(manifest: "IndexManifest") -> str:
    if manifest.recall is None:
        return "not measured"
    tuning = manifest.tuning
    if tuning is None:
        return f"{manifest.recall:.3f}"
    questions = "given questions" if tuning.source == "file" else "stored passages"
    return f"{manifest.recall:.3f} (target {tuning.target}; {tuning.queries} {questions})"


def _settings(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
