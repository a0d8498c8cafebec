"""Passages with metadata, and their vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.bundles import E, random_vectors, write_bundle

OWNERS = ["data", "search", 'o\'brien = "x"', "data\x00", ""]
VECTORS = random_vectors(120)


def metadata_of(row: int) -> dict[str, str]:
    """What the passage of a row says of itself; every seventh nothing."""
    if row % 7 == 0:
        return {}
    return {"owner": OWNERS[row % 5], "year": str(2020 + row % 3)}


def write_corpus(folder: Path, rows: range) -> dict[str, Any]:
    """Numbered passages with metadata, and their vectors, as arguments of a build."""
    lines = [
        json.dumps({"id": f"p{row}", "title": f"t{row}", "text": "x", "none": None} | metadata_of(row))
        for row in rows
    ]
    name = f"{rows.start}-{rows.stop}"
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    np.save(folder / f"{name}.npy", VECTORS[rows.start : rows.stop])
    bundle = folder / "bundle"
    if not bundle.exists():
        write_bundle(bundle, E)
    return {"passages": folder / f"{name}.jsonl", "embeddings": folder / f"{name}.npy", "bundle": bundle}
