"""Write the missing golden bundle and index of the format versions that this tree writes.

    python -m tests.robustness.golden.make

Run it by hand, once for each new format version.  It never changes an existing folder: what an old version
wrote cannot be written again.  The checkpoint is a pure function of its spec, so bundles of all versions
hold the same model, belong to the same indexes, and give the same answers.  From version 4 on they also have
a passage encoder, which the indexes, made from embeddings, do not need.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DPRContextEncoder, RagTokenForGeneration, RagTokenizer

from ragengine import RagEngine
from ragengine.bundle import manifest as bundle_format
from ragengine.indexing.build import build_index
from ragengine.retrieval import manifest as index_format
from ragengine_bench.checkpoints.corpus import random_questions
from ragengine_bench.checkpoints.rag_checkpoint import random_spec, write_checkpoint
from ragengine_export import export_checkpoint
from tests.robustness.golden import ANSWERS
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


def main() -> None:
    """Write the missing folders and their answers."""
    bundle_name = f"bundle_v{bundle_format.FORMAT_VERSION}"
    index_name = f"index_v{index_format.FORMAT_VERSION}"
    if (GOLDEN / bundle_name).exists() and (GOLDEN / index_name).exists():
        raise SystemExit(f"{bundle_name} and {index_name} are there; golden files are never written again.")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(SPEC, Path(folder))
        if not (GOLDEN / bundle_name).exists():
            passages = write_passage_encoder(checkpoint.source, Path(folder, "passage_encoder"))
            export_checkpoint(checkpoint.source, Path(folder, "bundle"), context_encoder=passages)
            shutil.copytree(Path(folder, "bundle"), GOLDEN / bundle_name)
        if not (GOLDEN / index_name).exists():
            build_index(
                checkpoint.passages_file,
                Path(folder, "index"),
                bundle=GOLDEN / bundle_name,
                embeddings=checkpoint.embeddings_file,
            )
            shutil.copytree(Path(folder, "index"), GOLDEN / index_name)
    records = json.loads(ANSWERS.read_text("utf-8")) if ANSWERS.exists() else []
    records += answered(bundle_name, index_name)
    ANSWERS.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")


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
    with RagEngine.load(GOLDEN / bundle_name, index=GOLDEN / index_name, device="cpu", threads=1) as engine:
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
    main()
