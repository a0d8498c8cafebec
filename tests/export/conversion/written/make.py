"""Write `checkpoints.tar.xz`: tiny checkpoints by the TensorFlow and Flax classes of transformers 4.57.

In an environment of its own, since transformers 5 has these classes no more:

    pip install transformers==4.57.1 torch==2.13.0
    pip install tensorflow-cpu==2.19.1 tf-keras==2.19.0 "jax[cpu]==0.6.2" flax==0.10.7
    python tests/export/conversion/written/make.py

Each folder has, beside what `save_pretrained` wrote, `expected.json`: what the class that wrote it computes
of :data:`INPUT_IDS`.  The weights are :func:`weight` of PyTorch's names, so that a test knows them without
reading the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ARCHIVE = Path(__file__).with_name("checkpoints.tar.xz")
QUESTION_VOCABULARY, GENERATOR_VOCABULARY = 250, 330  # those of tests.support.models' tokenizers
DOCUMENTS, PAD = 2, 1
VARIANTS: dict[str, dict[str, Any]] = {
    "": {"safe_serialization": False},
    "_shards": {"safe_serialization": False, "max_shard_size": "12KB"},
    "_safetensors": {"safe_serialization": True},
}
SEVERAL = ("bart", "t5_gated", "rag_token")  # in all variants

BERT = {
    "vocab_size": QUESTION_VOCABULARY,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BERT |= {"intermediate_size": 14, "max_position_embeddings": 32}
DISTILBERT = {"vocab_size": QUESTION_VOCABULARY, "dim": 12, "hidden_dim": 14, "n_layers": 1, "n_heads": 2}
DISTILBERT |= {"max_position_embeddings": 32}
BART: dict[str, Any] = {"vocab_size": GENERATOR_VOCABULARY, "d_model": 12, "max_position_embeddings": 48}
BART |= {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 3}
BART |= {"encoder_ffn_dim": 14, "decoder_ffn_dim": 16}
T5: dict[str, Any] = {
    "vocab_size": GENERATOR_VOCABULARY,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 14,
    "num_heads": 2,
}
T5 |= {
    "num_layers": 1,
    "num_decoder_layers": 2,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8,
}
SPECIALS = {"pad_token_id": PAD, "eos_token_id": 2, "decoder_start_token_id": PAD}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

INPUT_IDS = [[0, 9, 17, 30, 41, 55, 2], [0, 9, 18, 200, 77, 2, 1]]
"""Two documents of a question, or two texts; the last token of the second is padding."""
LABELS = [2, 0, 44, 45, 46, 300, 2]
DOC_SCORES = [[1.25, 0.5]]


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of a weight: small, different in each place, and soon compressed; norms are around 1."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    value = random.integers(-24, 25, shape) / 64
    return (value + ("norm" in name.lower() and name.endswith("weight"))).astype(np.float32)


def weighted(model: Any) -> Any:
    """Give a PyTorch model its weights; tied ones have one name, the first of them; sinusoids stay."""
    import torch

    seen: set[int] = set()
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            computed = isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad
            if tensor.is_floating_point() and not computed and id(tensor) not in seen:
                seen.add(id(tensor))
                tensor.copy_(torch.from_numpy(weight(name, tuple(tensor.shape))))
    return model.eval()


def main() -> None:
    """Write all folders and pack them, with nothing in the archive that says when or where."""
    with tempfile.TemporaryDirectory() as folder:
        write_tensorflow(Path(folder))
        write_flax(Path(folder))
        with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    entry = archive.gettarinfo(path, str(path.relative_to(folder)))
                    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
                    with path.open("rb") as file:
                        archive.addfile(entry, file)
    print(f"{ARCHIVE} has {ARCHIVE.stat().st_size} bytes")


def write_tensorflow(folder: Path) -> None:
    """Save what TensorFlow's classes have and compute."""
    import tensorflow as tf
    import transformers as t
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    ids = tf.constant(INPUT_IDS)
    inputs = {"input_ids": ids, "attention_mask": tf.cast(ids != PAD, tf.int32)}
    labels = tf.constant([LABELS] * DOCUMENTS)
    contexts = {f"context_{name}": value for name, value in inputs.items()}
    contexts |= {"doc_scores": tf.constant(DOC_SCORES), "n_docs": DOCUMENTS}

    def vectors(model: Any) -> Any:
        output = model(**inputs)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled

    def log_probs(model: Any) -> Any:
        logits = model(**inputs, decoder_input_ids=labels).logits
        return tf.gather(tf.nn.log_softmax(logits)[:, :-1], labels[:, 1:], axis=2, batch_dims=2)

    def computed(model: Any) -> dict[str, Any]:
        """All that a class computes: vectors, log p(label | document), scores, tokens."""
        inner = getattr(model, "rag", model)
        found = {}
        if isinstance(model.config, t.RagConfig):
            found |= {"vectors": vectors(inner.question_encoder), "log_probs": log_probs(inner.generator)}
        elif model.config.is_encoder_decoder:
            found["log_probs"] = log_probs(model)
        else:
            found["vectors"] = vectors(model)
        if inner is not model:
            loss = model(None, labels=labels[:1], **contexts).loss
            found |= {"score": -tf.reshape(loss, [-1])}
            for beams in (1, 3):
                found[f"tokens_{beams}"] = model.generate(**contexts, num_beams=beams, max_length=12)
        return {name: value.numpy().tolist() for name, value in found.items()}

    for name, (kind, config) in checkpoints().items():
        model = getattr(t, f"TF{kind}")(config)
        state = weighted(getattr(t, kind)(config)).state_dict()
        biases = [value for key, value in state.items() if key.endswith("final_logits_bias")]
        if biases:
            state["final_logits_bias"] = biases[0]  # where TensorFlow's RAG has it
        given = inputs | {"decoder_input_ids": labels} if config.is_encoder_decoder else inputs
        if isinstance(config, t.RagConfig):
            given = {"input_ids": ids[:1], "decoder_input_ids": labels[:1], **contexts}
        load_pytorch_state_dict_in_tf2_model(model, state, given)
        for variant, settings in VARIANTS.items():
            if not variant or name in SEVERAL:
                model.save_pretrained(folder / f"{name}{variant}", **settings)
                expect(folder / f"{name}{variant}", computed(model))


def write_flax(folder: Path) -> None:
    """Save what Flax's classes have and compute; there is no RAG, no DPR and no MPNet among them."""
    import jax
    import transformers as t

    ids = np.array(INPUT_IDS)
    for name, (kind, config) in checkpoints().items():
        inputs = {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int32)}
        if not hasattr(t, f"Flax{kind}"):
            continue
        weighted(getattr(t, kind)(config)).save_pretrained(folder / "pytorch")
        model = getattr(t, f"Flax{kind}").from_pretrained(folder / "pytorch", from_pt=True)
        shutil.rmtree(folder / "pytorch")
        found = {}
        if kind == "ElectraModel":  # which Flax gives the second type of token by default
            inputs["token_type_ids"] = np.zeros_like(ids)
        if config.is_encoder_decoder:
            labels = np.array([LABELS] * DOCUMENTS)
            logits = model(**inputs, decoder_input_ids=labels).logits
            chosen = np.take_along_axis(
                np.asarray(jax.nn.log_softmax(logits))[:, :-1], labels[:, 1:, None], 2
            )
            found["log_probs"] = chosen[..., 0].tolist()
        else:
            output = model(**inputs)
            pooled = getattr(output, "pooler_output", None)
            found["vectors"] = np.asarray(
                output.last_hidden_state[:, 0] if pooled is None else pooled
            ).tolist()
        for variant, settings in VARIANTS.items():
            if not variant or name in SEVERAL:
                model.save_pretrained(folder / f"flax_{name}{variant}", **settings)
                expect(folder / f"flax_{name}{variant}", found)


def checkpoints() -> dict[str, tuple[str, Any]]:
    """The name, PyTorch class and config of each."""
    import transformers as t

    bart, t5, gated = t.BartConfig(**BART), t.T5Config(**T5), t.T5Config(**T5, **GATED)
    dpr = t.DPRConfig(**BERT)
    rag = t.RagConfig.from_question_encoder_generator_configs(
        dpr, bart, n_docs=DOCUMENTS, max_combined_length=24
    )
    return {
        "question_encoder": ("DPRQuestionEncoder", dpr),
        "context_encoder": ("DPRContextEncoder", dpr),
        "bert": ("BertModel", t.BertConfig(**BERT)),
        "roberta": ("RobertaModel", t.RobertaConfig(**BERT)),
        "mpnet": ("MPNetModel", t.MPNetConfig(**BERT)),
        "electra": ("ElectraModel", t.ElectraConfig(**BERT, embedding_size=8)),
        "distilbert": ("DistilBertModel", t.DistilBertConfig(**DISTILBERT)),
        "bart": ("BartForConditionalGeneration", bart),
        "t5": ("T5ForConditionalGeneration", t5),
        "mbart": ("MBartForConditionalGeneration", t.MBartConfig(**BART)),
        "pegasus": ("PegasusForConditionalGeneration", t.PegasusConfig(**BART, **SPECIALS)),
        "marian": ("MarianMTModel", t.MarianConfig(**BART, **SPECIALS)),
        "blenderbot_small": (
            "BlenderbotSmallForConditionalGeneration",
            t.BlenderbotSmallConfig(**BART, **SPECIALS),
        ),
        "t5_gated": ("T5ForConditionalGeneration", gated),
        "mt5": ("MT5ForConditionalGeneration", t.MT5Config(**T5)),
        "rag_token": ("RagTokenForGeneration", rag),
        "rag_sequence": ("RagSequenceForGeneration", rag),
        "rag_model": ("RagModel", rag),
    }


def expect(folder: Path, found: dict[str, Any]) -> None:
    """Put what a model computes beside it."""
    (folder / "expected.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    main()
