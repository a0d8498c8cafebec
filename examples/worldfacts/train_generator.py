"""Train the BART generator to answer from one passage: `python train_generator.py --data data --work work`.

The input is what `RagRetriever.postprocess_docs` makes of the right passage and the question; the target is
" " + answer + </s>, decoded from </s> (`decoder_start_token_id`) with no <s> between, which is how
`RagTokenForGeneration.generate` starts. The space makes an answer the same tokens as in the passage.

The attention starts with weights that match and copy (`initialise_copying`). From the usual start, copying
had not emerged after 1,100 steps.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizerFast,
    DPRQuestionEncoderTokenizerFast,
)

from augment import enlarge
from common import (
    MAX_COMBINED_LENGTH,
    Passages,
    Question,
    TrainingLog,
    decoded_questions,
    exact_match,
    prompt,
    read_passages,
    read_questions,
    seed_everything,
    write_json,
)

HYPERPARAMETERS: dict[str, Any] = {
    # each cycle: a fresh optimizer, its own order of examples, the rate up and then down to nearly 0
    "cycles": [
        {
            "steps": 2_000,
            "rate": 6e-4,
            "warmup": 200,
            "swapped_copies": 0,
            "scrambled": 0,
            "shares": {"country": 0.22, "city": 0.40, "airport": 0.38},
        },
        {
            "steps": 1_800,
            "rate": 5e-4,
            "warmup": 50,
            "swapped_copies": 3,
            "scrambled": 0,
            "shares": {"country": 0.22, "city": 0.36, "airport": 0.42},
        },
        {
            "steps": 1_600,
            "rate": 5e-4,
            "warmup": 50,
            "swapped_copies": 1,
            "scrambled": 90_000,
            "shares": {"country": 0.20, "city": 0.38, "airport": 0.42},
        },
    ],
    "batch": 64,
    "weight_decay": 0.01,
    "clip": 1.0,
    "dropout": 0.0,
    "seed": 7,
    "init_match": 0.7,
    "init_copy": 1.0,
}
MAX_POSITIONS = 320
PAD, START = 1, 2
IGNORE = -100


def make_model(vocabulary: int) -> BartForConditionalGeneration:
    """A BART of d_model 256 and 3+3 layers (7.7 M parameters), freshly initialised."""
    config = BartConfig(
        vocab_size=vocabulary,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_position_embeddings=MAX_POSITIONS,
        activation_function="gelu",
        dropout=HYPERPARAMETERS["dropout"],
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=False,
        tie_word_embeddings=True,
        decoder_start_token_id=START,
        forced_eos_token_id=2,
    )
    model = BartForConditionalGeneration(config)
    initialise_copying(model)
    return model


@torch.no_grad()
def initialise_copying(model: BartForConditionalGeneration) -> None:
    """Start every attention as "look at what resembles me", and cross-attention as "and copy it".

    Query and key projections are one orthogonal matrix, so that a score is the likeness of two states; in
    cross-attention the output projection undoes the value projection, so that the decoder receives the
    state it looks at, which the tied embeddings turn into that very token. Otherwise where to look is not
    learned before what is seen there is of use, and the other way round, which takes long.
    """
    match, copy = HYPERPARAMETERS["init_match"], HYPERPARAMETERS["init_copy"]
    for name, module in model.named_modules():
        if name.endswith(("self_attn", "encoder_attn")):
            torch.nn.init.orthogonal_(module.q_proj.weight, gain=match)
            module.k_proj.weight.copy_(module.q_proj.weight)
        if name.endswith("encoder_attn"):
            torch.nn.init.orthogonal_(module.v_proj.weight, gain=copy)
            module.out_proj.weight.copy_(module.v_proj.weight.T)


class Examples:
    """Tokenised prompts and answers, sampled by kind of passage."""

    def __init__(
        self,
        passages: Passages,
        questions: list[Question],
        question_tokenizer: DPRQuestionEncoderTokenizerFast,
        tokenizer: BartTokenizerFast,
    ) -> None:
        texts = decoded_questions(question_tokenizer, [q.question for q in questions])
        rows = [passages.row[q.passage_id] for q in questions]
        prompts = [
            prompt(passages.titles[row], passages.texts[row], text)
            for row, text in zip(rows, texts, strict=True)
        ]
        self.inputs: list[list[int]] = tokenizer(prompts, truncation=True, max_length=MAX_COMBINED_LENGTH)[
            "input_ids"
        ]
        answers = [" " + q.answers[0] for q in questions]
        self.targets = [ids[1:] for ids in tokenizer(answers)["input_ids"]]  # without <s>
        self.by_kind: dict[str, list[int]] = defaultdict(list)
        for index, q in enumerate(questions):
            self.by_kind[q.type.split(".")[0]].append(index)

    def batches(
        self, size: int, shares: dict[str, float], rng: random.Random
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Endless batches; examples of one batch have about the same length."""
        kinds = sorted(self.by_kind)
        queues: dict[str, list[int]] = {kind: [] for kind in kinds}
        weights = [shares[kind] for kind in kinds]
        while True:
            pool = []
            for kind in rng.choices(kinds, weights, k=size * 25):
                if not queues[kind]:
                    queues[kind] = rng.sample(self.by_kind[kind], len(self.by_kind[kind]))
                pool.append(queues[kind].pop())
            pool.sort(key=lambda index: len(self.inputs[index]))
            starts = list(range(0, len(pool), size))
            rng.shuffle(starts)
            for start in starts:
                chosen = pool[start : start + size]
                yield (
                    pad([self.inputs[i] for i in chosen], PAD),
                    pad([self.targets[i] for i in chosen], IGNORE),
                )


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Right-pad to the longest row."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def train(model: BartForConditionalGeneration, examples: Examples, cycle: int) -> TrainingLog:
    """Train for one cycle, with bf16 autocast."""
    h, plan = HYPERPARAMETERS, HYPERPARAMETERS["cycles"][cycle]
    steps, warmup = plan["steps"], plan["warmup"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan["rate"], betas=(0.9, 0.98), weight_decay=h["weight_decay"]
    )

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup) / (steps - warmup))
        return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    log = TrainingLog(f"generator cycle {cycle}")
    batches = examples.batches(h["batch"], plan["shares"], random.Random(h["seed"] + cycle))
    model.train()
    for step in range(1, steps + 1):
        inputs, labels = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=inputs, attention_mask=inputs.ne(PAD).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), h["clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        log.step(step, steps, loss.item(), schedule.get_last_lr()[0])
    model.eval()
    return log


@torch.inference_mode()
def answer(
    model: BartForConditionalGeneration, tokenizer: BartTokenizerFast, inputs: list[list[int]], num_beams: int
) -> list[str]:
    """Generate from each input, batches of similar length, in fp32."""
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    result = [""] * len(inputs)
    for start in range(0, len(order), 50):
        chosen = order[start : start + 50]
        ids = pad([inputs[i] for i in chosen], PAD)
        mask = ids.ne(PAD).long()
        output = model.generate(input_ids=ids, attention_mask=mask, num_beams=num_beams, max_new_tokens=32)
        for index, text in zip(chosen, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
            result[index] = text
    return result


def measure(
    model: BartForConditionalGeneration,
    tokenizer: BartTokenizerFast,
    examples: Examples,
    questions: list[Question],
    num_beams: int,
) -> dict[str, float]:
    """Exact match given the right passage: over all questions and by type."""
    model.eval()
    hits: dict[str, list[bool]] = defaultdict(list)
    for question, text in zip(questions, answer(model, tokenizer, examples.inputs, num_beams), strict=True):
        hits["all"].append(exact_match(text, question.answers))
        hits[question.type].append(hits["all"][-1])
    return {name: round(sum(values) / len(values), 4) for name, values in sorted(hits.items())}


def run(data: Path, work: Path) -> None:
    """Train the generator; needs the tokenizers of `prepare.py` in `work`."""
    seed_everything(HYPERPARAMETERS["seed"])
    question_tokenizer = DPRQuestionEncoderTokenizerFast.from_pretrained(work / "question_tokenizer")
    tokenizer = BartTokenizerFast.from_pretrained(work / "generator_tokenizer")
    passages = read_passages(data / "passages.tsv")
    questions = read_questions(data / "train.jsonl")
    model = make_model(len(tokenizer))
    click.echo(f"{model.num_parameters():,} parameters")
    folder = work / "generator"
    folder.mkdir(parents=True, exist_ok=True)
    development = read_questions(data / "dev.jsonl")
    dev_examples = Examples(passages, development, question_tokenizer, tokenizer)
    for cycle in range(len(HYPERPARAMETERS["cycles"])):
        weights, report = folder / f"cycle{cycle}.pt", folder / f"cycle{cycle}.json"
        if report.exists():
            model.load_state_dict(torch.load(weights, weights_only=True))
            continue
        plan, seed = HYPERPARAMETERS["cycles"][cycle], HYPERPARAMETERS["seed"]
        enlarged = enlarge(passages, questions, plan["swapped_copies"], plan["scrambled"], seed)
        log = train(model, Examples(*enlarged, question_tokenizer, tokenizer), cycle)
        torch.save(model.state_dict(), weights)
        dev = measure(model, tokenizer, dev_examples, development, num_beams=1)
        click.echo(f"exact match on {len(development)} dev questions, right passage, greedy: {dev}")
        write_json(report, {"seconds": log.seconds, "loss": log.samples, "dev": dev})
    model.save_pretrained(folder)
    cycles = [json.loads(path.read_text()) for path in sorted(folder.glob("cycle*.json"))]
    write_json(folder / "report.json", {"hyperparameters": HYPERPARAMETERS, "cycles": cycles})


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("work"), show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
def main(data: Path, work: Path, threads: int) -> None:
    """Train the generator; needs the tokenizers of `prepare.py` in `work`."""
    torch.set_num_threads(threads)
    run(data, work)


if __name__ == "__main__":
    main()
