"""A made-up world that is learned in seconds: towns, each with a mayor, and questions for the mayors."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizerFast,
    DPRConfig,
    DPRQuestionEncoder,
    DPRQuestionEncoderTokenizerFast,
)

from ragengine_bench.checkpoints.tokenizers import BART_SPECIALS, BERT_SPECIALS
from ragengine_train.data import Example, TrainingPassages, read_examples

TOWNS = 120
WORDINGS = ("Who is the mayor of {}?", "Which person leads {}?", "Who leads the town of {}?")
COMMON = 'logging_steps = 5\nlr_scheduler_type = "constant_with_warmup"\nwarmup_steps = 5\nsave_steps = 10\n'
STAGES = {
    "encoders": COMMON
    + "per_device_train_batch_size = 24\nmax_steps = 30\nlearning_rate = 2e-3\n"
    + "hard_negatives = 1\nrefresh_negatives = [20]\nquestions_per_passage = 2\n"
    + "sample = {even = 0.9, odd = 0.1}\n",
    "generator": COMMON + "per_device_train_batch_size = 16\nmax_steps = 180\nlearning_rate = 3e-3\n",
    "joint": COMMON + "per_device_train_batch_size = 8\ngradient_accumulation_steps = 2\nmax_steps = 60\n"
    "learning_rate = 3e-4\n",
}
_WORDS = "the of is who mayor leads town river lies on has a named which person in ? . / ' s"


def names(count: int, ending: str, seed: int) -> list[str]:
    """Different made-up names."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[
            "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)).title() + ending
        ] = None
    return list(found)


def write_data(folder: Path) -> None:
    """`passages.tsv`, `train.jsonl` with two questions a town, and `dev.jsonl` with a third."""
    folder.mkdir(parents=True)
    towns, mayors = names(TOWNS, "ton", 1), names(TOWNS, "", 2)
    passages, train, dev = ["id\ttext\ttitle"], [], []
    for number, (town, mayor) in enumerate(zip(towns, mayors, strict=True)):
        passages.append(f"t{number}\tThe mayor of {town} is {mayor}.\t{town}")
        line = {"answers": [mayor], "passage_id": f"t{number}", "group": "even" if number % 2 == 0 else "odd"}
        asked = [{"question": wording.format(town), **line} for wording in WORDINGS]
        dev.append(asked.pop(number % 3))  # every wording is trained on, but not for every town
        train += asked
    (folder / "passages.tsv").write_text("\n".join(passages) + "\n")
    for name, lines in (("train", train), ("dev", dev)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def examples_of(tmp_path: Path, corpus: TrainingPassages, *entries: dict[str, Any]) -> list[Example]:
    """The examples of a questions file with these lines over ``corpus``."""
    path = tmp_path / "lines.jsonl"
    path.write_text(
        "".join(json.dumps({"question": "q", "answers": ["x"], **entry}) + "\n" for entry in entries)
    )
    return read_examples([path], corpus)


def write_models(folder: Path) -> None:
    """Random networks with tokenizers that know every name: `question_encoder` and `generator`."""
    words = [*_WORDS.split(), *(name.lower() for name in names(TOWNS, "ton", 1) + names(TOWNS, "", 2))]
    encoder_folder, generator_folder = folder / "question_encoder", folder / "generator"
    encoder_folder.mkdir(parents=True)
    (encoder_folder / "vocab.txt").write_text("\n".join([*BERT_SPECIALS, *words]) + "\n")
    tokenizer = DPRQuestionEncoderTokenizerFast.from_pretrained(encoder_folder, do_lower_case=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "projection_dim": 32}
    DPRQuestionEncoder(
        DPRConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ).save_pretrained(encoder_folder)
    tokenizer.save_pretrained(encoder_folder)
    write_generator(generator_folder, words)


def spread_encoder(folder: Path) -> None:
    """Let the random encoder in `folder` tell passages apart.

    Without it all vectors are almost equal, and which passages are nearest is a matter of rounding.
    """
    model = DPRQuestionEncoder.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("self.value.weight", "attention.output.dense.weight")):
                parameter *= 10
    model.save_pretrained(folder)


def write_generator(folder: Path, words: list[str]) -> None:
    """A BART of one layer each, whose attention begins as "copy what resembles me"."""
    trained = ByteLevelBPETokenizer()
    spellings = [f" {word} {word.title()}" for word in words] * 3
    trained.train_from_iterator(
        spellings, vocab_size=3000, min_frequency=2, special_tokens=BART_SPECIALS, show_progress=False
    )
    folder.mkdir()
    trained.save_model(str(folder))
    tokenizer = BartTokenizerFast.from_pretrained(folder)
    sizes = {"d_model": 48, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": len(tokenizer)}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    config = BartConfig(
        **sizes, **heads, encoder_layers=1, decoder_layers=1, max_position_embeddings=64, dropout=0.0
    )
    model = BartForConditionalGeneration(config)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith(("self_attn", "encoder_attn")):
                torch.nn.init.orthogonal_(module.q_proj.weight, gain=0.7)
                module.k_proj.weight.copy_(module.q_proj.weight)
            if name.endswith("encoder_attn"):
                torch.nn.init.orthogonal_(module.v_proj.weight)
                module.out_proj.weight.copy_(module.v_proj.weight.T)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_config(folder: Path, *, kind: str = "token", output: str = "run", **stages: str) -> Path:
    """`train.toml` with the given tables; each is the body of its table."""
    tables = "\n".join(f"[{name}]\n{body}" for name, body in stages.items())
    path = folder / f"{output}.toml"
    path.write_text(
        f"""
output = "{output}"
seed = 5
[data]
passages = "data/passages.tsv"
train = "data/train.jsonl"
dev = "data/dev.jsonl"
dev_questions = 40
[model]
question_encoder = "start/question_encoder"
generator = "start/generator"
share_encoders = true
type = "{kind}"
answer_prefix = " "
max_question_length = 32
max_passage_length = 32
max_combined_length = 60
max_answer_length = 10
[model.generation]
num_beams = 2
{tables}
"""
    )
    return path


def killed_after(config: Path, path: Path) -> None:
    """Run `ragengine train` in a process that is killed once ``path`` is there."""
    command = [sys.executable, "-c", "from ragengine.cli.main import main; main()", "train", str(config)]
    child = subprocess.Popen(
        [*command, "--threads", "1"], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert child.stderr is not None
    try:
        for _ in range(24_000):
            if path.exists() or child.poll() is not None:
                break
            time.sleep(0.005)
        assert child.poll() is None, child.stderr.read().decode()[-2000:]
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stderr.close()
