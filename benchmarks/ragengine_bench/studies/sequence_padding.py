"""RAG-Sequence in transformers 5 attends to padding: how often is its answer another, and which is likelier?

    python -m ragengine_bench.studies.sequence_padding CHECKPOINT BUNDLE INDEX QUESTIONS.jsonl

Both sides search the same documents with the same options.  transformers gets what its own retriever makes of
them, padded to ``max_combined_length``; its search by document passes no attention mask on.  Both answers are
then scored by torch, with the mask: log p(y | x) = -RagSequenceForGeneration.get_nll.
"""

from pathlib import Path
from statistics import fmean

import click
import torch
import transformers
from torch.nn.functional import pad

from ragengine import RagEngine
from ragengine.cli.console import SafeConsole
from ragengine.evaluation import exact_match, read_questions
from ragengine.pipeline.prompts import format_prompt

SAME = 1e-3  # nats; two float32 sums over the same tokens differ by less


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("questions", type=click.Path(path_type=Path))
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Questions, evenly.")
@click.option("--num-beams", type=click.IntRange(1), default=4, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--with-mask", is_flag=True, help="Hand the mask to the search, as a control.")
@torch.no_grad()
def main(
    checkpoint: Path, bundle: Path, index: Path, questions: Path, limit: int, num_beams: int, threads: int,
    with_mask: bool,
) -> None:  # fmt: skip
    """Compare the answers of transformers and ragengine to QUESTIONS, and their likelihoods by torch."""
    torch.set_num_threads(threads)
    asked = read_questions(questions)
    asked = asked[:: max(1, len(asked) // limit)][:limit]
    model = transformers.RagSequenceForGeneration.from_pretrained(checkpoint).eval()
    if with_mask:
        search, blank = model.generator.generate, model.config.generator.pad_token_id
        model.generator.generate = lambda ids, **given: search(
            ids, **given | {"attention_mask": (ids != blank).long()}
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint / "generator", trust_remote_code=False)
    different, gaps, right = 0, [], {"transformers": 0.0, "ragengine": 0.0}
    with RagEngine.load(bundle, index, device="cpu", threads=threads) as engine:
        for question in asked:
            answer = engine.generate(question.question, marginalize="sequence", num_beams=num_beams)
            prompts = [
                format_prompt(engine.bundle.manifest.rag, d.title, d.text, question.question)
                for d in answer.documents
            ]
            padded = tokenizer(
                prompts,
                max_length=model.config.max_combined_length,
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            scores = torch.tensor([[document.score for document in answer.documents]])
            inputs = {
                "context_input_ids": padded["input_ids"],
                "context_attention_mask": padded["attention_mask"],
                "doc_scores": scores,
            }
            n_docs = len(prompts)
            theirs = model.generate(
                **inputs,
                n_docs=n_docs,
                num_beams=num_beams,
                do_deduplication=True,
                max_length=answer.options.longest,
            )[0]
            start = model.config.generator.decoder_start_token_id
            ours = torch.tensor([start, *answer.hypotheses[0].token_ids])
            width = max(len(theirs), len(ours))
            blank = model.config.generator.pad_token_id
            labels = [pad(tokens, (0, width - len(tokens)), value=blank) for tokens in (theirs, ours)]
            likelihoods = [
                -model(**inputs, labels=one[None], n_docs=n_docs, exclude_bos_score=False).loss.item()
                for one in labels
            ]
            texts = [tokenizer.decode(one, skip_special_tokens=True).strip() for one in labels]
            different += texts[0] != texts[1]
            gaps.append(likelihoods[1] - likelihoods[0])
            for name, text in zip(right, texts, strict=True):
                right[name] += any(exact_match(text, [one]) for one in question.answers)
    console, count = SafeConsole(width=120), len(asked)
    console.print(f"transformers {transformers.__version__}, {count} questions, {num_beams} beams")
    console.print(f"another answer: {different} ({different / count:.1%})")
    console.print(f"log p(y|x) by torch, ragengine's answer - transformers': mean {fmean(gaps):+.4f} nats")
    ours_better, theirs_better = (sum(sign * gap > SAME for gap in gaps) for sign in (1, -1))
    console.print(
        f"the likelier is ragengine's {ours_better}, transformers' {theirs_better}, "
        f"neither {count - ours_better - theirs_better} times"
    )
    console.print(", ".join(f"exact match of {name} {value / count:.1%}" for name, value in right.items()))


if __name__ == "__main__":
    main()
