"""Write the missing golden bundle and index of the format versions that this tree writes.

    python -m tests.robustness.golden.make bundle | index | shards

Run it by hand, once for each new format version.  An index is written beside the newest bundle that is there.
It never changes an existing folder: what an old version wrote cannot be written again.  Files that another
folder has are left out of the new one.  The checkpoint is a pure function of its spec, so bundles of all
versions hold the same model, belong to the same indexes, and give the same answers.  From version 4 on they
also have a passage encoder, which the indexes, made from embeddings, do not need.  Of an index in shards only
``shards.json`` is kept: its shards are those of the newest index, divided again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DPRContextEncoder, RagTokenForGeneration, RagTokenizer

from ragengine import RagEngine
from ragengine.bundle import manifest as bundle_format
from ragengine.indexing.build import build_index
from ragengine.indexing.shard import shard_index
from ragengine.indexing.shard_addresses import set_shard_addresses
from ragengine.retrieval import manifest as index_format
from ragengine.retrieval.sharding import manifest as shards_format
from ragengine.storage.ownership import SHARDS
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_export import export_checkpoint
from tests.robustness.golden import ANSWERS, completed, stored_files
from tests.support.paths import GOLDEN

# As small as a RAG model can be: the two tokenizers and the graphs are most of it.
SPEC = random_spec(
    8,
    question_vocab_size=200,
    question_hidden_size=8,
    question_heads=2,
    question_layers=1,
    question_ffn=8,
    question_positions=64,
    projection_dim=0,
    generator_tokens=280,
    generator_vocab_extra=3,
    d_model=8,
    encoder_layers=1,
    decoder_layers=1,
    encoder_heads=2,
    decoder_heads=2,
    encoder_ffn=8,
    decoder_ffn=8,
    positions=80,
    max_combined_length=72,
    tied=True,
    forced_bos=True,
    forced_eos=True,
    n_docs=3,
    n_passages=20,
    longest_passage=10,
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_beams": 1, "max_length": 10},
    {"num_beams": 4, "num_return_sequences": 2, "max_length": 12, "min_length": 4},
    {"marginalize": "sequence", "search": "thorough", "num_beams": 3, "max_length": 8},
    {"marginalize": "sequence", "search": "joint", "num_beams": 3, "max_length": 8, "n_docs": 5},
)


def main(kind: str) -> None:
    """Write the missing folder of ``kind``, bundle or index, and its answers; or the file of shards."""
    if kind == "shards":
        write_shards(GOLDEN / f"shards_v{shards_format.FORMAT_VERSION}.json")
        return
    bundle_name = f"bundle_v{bundle_format.FORMAT_VERSION}" if kind == "bundle" else newest("bundle")
    index_name = f"index_v{index_format.FORMAT_VERSION}" if kind == "index" else newest("index")
    written = bundle_name if kind == "bundle" else index_name
    if (GOLDEN / written).exists():
        raise SystemExit(f"{written} is there; golden files are never written again.")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(SPEC, Path(folder))
        if kind == "bundle":
            passages = write_passage_encoder(checkpoint.source, Path(folder, "passage_encoder"))
            export_checkpoint(checkpoint.source, Path(folder, "bundle"), context_encoder=passages)
            store(Path(folder, "bundle"), GOLDEN / bundle_name)
        else:
            lines = checkpoint.passages_file.read_text("utf-8").splitlines()
            records = [json.loads(line) | {"row": row, "half": row // 10} for row, line in enumerate(lines)]
            Path(folder, "passages.jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
            build_index(
                Path(folder, "passages.jsonl"),
                Path(folder, "index"),
                bundle=completed(bundle_name, Path(folder)),
                embeddings=checkpoint.embeddings_file,
            )
            store(Path(folder, "index"), GOLDEN / index_name)
    answers = json.loads(ANSWERS.read_text("utf-8")) if ANSWERS.exists() else []
    answers += answered(bundle_name, index_name)
    ANSWERS.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", "utf-8")


def write_shards(path: Path) -> None:
    """Write ``shards.json`` of the newest index in four shards, one of which has a server, as ``path``."""
    if path.exists():
        raise SystemExit(f"{path.name} is there; golden files are never written again.")
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        shard_index(completed(newest("index"), Path(folder)), shards, shards=4)
        set_shard_addresses(shards, {2: ["http://shard-2:8000"]})
        shutil.copy(shards / SHARDS, path)


def store(folder: Path, target: Path) -> None:
    """Copy ``folder`` without the files that another golden folder has."""
    stored = stored_files()
    shutil.copytree(folder, target)
    for path in [path for path in target.rglob("*") if path.is_file()]:
        if hashlib.sha256(path.read_bytes()).hexdigest() in stored:
            path.unlink()


def newest(kind: str) -> str:
    """The name of the golden bundle or index of the latest version."""
    return max(
        (path.name for path in GOLDEN.glob(f"{kind}_v*")), key=lambda name: int(name.partition("_v")[2])
    )


def write_passage_encoder(source: Path, folder: Path) -> Path:
    """Write the checkpoint's question encoder with one part changed: format 4 stores the rest once."""
    trained = RagTokenForGeneration.from_pretrained(source).rag.question_encoder
    model = DPRContextEncoder(trained.config)
    names = {name: name.replace("question_encoder.", "ctx_encoder.") for name in trained.state_dict()}
    model.load_state_dict({names[name]: values for name, values in trained.state_dict().items()})
    rng = torch.Generator().manual_seed(SPEC.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".output.dense." in name:
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.3)
    model.save_pretrained(folder)
    RagTokenizer.from_pretrained(str(source)).question_encoder.save_pretrained(str(folder))
    return folder


def answered(bundle_name: str, index_name: str) -> list[dict[str, Any]]:
    """Questions with all fields that a later version must reproduce."""
    records = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle, index = (completed(name, folder) for name in (bundle_name, index_name))
        engine = stack.enter_context(RagEngine.load(bundle, index=index, device="cpu", threads=1))
        for number, question in enumerate(random_questions(np.random.default_rng(8), 8)):
            options = OPTIONS[number % len(OPTIONS)]
            answer = engine.generate(question, **options)
            records.append(
                {
                    "bundle": bundle_name,
                    "index": index_name,
                    "question": question,
                    "options": options,
                    "text": answer.raw_text,
                    "documents": {d.id: d.score for d in answer.documents},
                    "hypotheses": [
                        {"token_ids": list(map(int, h.token_ids)), "score": h.score, "log_prob": h.log_prob}
                        for h in answer.hypotheses
                    ],
                }
            )
    return records


if __name__ == "__main__":
    main(sys.argv[1])
