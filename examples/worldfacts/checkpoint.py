"""Join encoder and generator into one transformers RAG checkpoint with float16 weights.

    python checkpoint.py --work work --output checkpoint

writes what `RagTokenForGeneration.save_pretrained` and `RagTokenizer.save_pretrained` write, and in
`context_encoder/` the same encoder as a `DPRContextEncoder` with its tokenizer.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import torch
from transformers import (
    BartForConditionalGeneration,
    BartTokenizerFast,
    DPRContextEncoder,
    DPRContextEncoderTokenizerFast,
    DPRQuestionEncoder,
    DPRQuestionEncoderTokenizerFast,
    GenerationConfig,
    RagConfig,
    RagTokenForGeneration,
    RagTokenizer,
)

from common import DOC_SEP, MAX_ANSWER_LENGTH, MAX_COMBINED_LENGTH, N_DOCS, NUM_BEAMS, TITLE_SEP


def context_encoder_of(question_encoder: DPRQuestionEncoder) -> DPRContextEncoder:
    """The passage side: the very same weights."""
    context_encoder = DPRContextEncoder(question_encoder.config)
    context_encoder.ctx_encoder.load_state_dict(question_encoder.question_encoder.state_dict())
    return context_encoder


def assemble(
    question_encoder: DPRQuestionEncoder,
    generator: BartForConditionalGeneration,
    question_tokenizer: DPRQuestionEncoderTokenizerFast,
    generator_tokenizer: BartTokenizerFast,
    output: Path,
) -> None:
    """Write the checkpoint into `output`, replacing what is there."""
    question_encoder.config._name_or_path = generator.config._name_or_path = ""  # no path of this machine
    config = RagConfig.from_question_encoder_generator_configs(
        question_encoder.config,
        generator.config,
        n_docs=N_DOCS,
        max_combined_length=MAX_COMBINED_LENGTH,
        title_sep=TITLE_SEP,
        doc_sep=DOC_SEP,
        retrieval_vector_size=question_encoder.config.projection_dim,
        index_name="custom",
        bos_token_id=generator.config.bos_token_id,
        pad_token_id=generator.config.pad_token_id,
        eos_token_id=generator.config.eos_token_id,
        decoder_start_token_id=generator.config.decoder_start_token_id,
        forced_eos_token_id=2,
    )
    model = RagTokenForGeneration(config=config, question_encoder=question_encoder, generator=generator)
    model.generation_config = GenerationConfig(
        num_beams=NUM_BEAMS,
        max_length=MAX_ANSWER_LENGTH,
        bos_token_id=generator.config.bos_token_id,
        pad_token_id=generator.config.pad_token_id,
        eos_token_id=generator.config.eos_token_id,
        decoder_start_token_id=generator.config.decoder_start_token_id,
        forced_eos_token_id=2,
    )
    context_encoder = context_encoder_of(question_encoder)
    temporary = output.with_name(output.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model.to(torch.float16).save_pretrained(temporary)
    RagTokenizer(question_tokenizer, generator_tokenizer).save_pretrained(temporary)
    context_encoder.to(torch.float16).save_pretrained(temporary / "context_encoder")
    context_tokenizer = DPRContextEncoderTokenizerFast(
        vocab=question_tokenizer.get_vocab(),
        do_lower_case=True,
        model_max_length=question_tokenizer.model_max_length,
    )
    context_tokenizer.save_pretrained(temporary / "context_encoder")
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def run(work: Path, output: Path) -> None:
    """Assemble the checkpoint from `work/encoder` and `work/generator`."""
    assemble(
        DPRQuestionEncoder.from_pretrained(work / "encoder"),
        BartForConditionalGeneration.from_pretrained(work / "generator"),
        DPRQuestionEncoderTokenizerFast.from_pretrained(work / "question_tokenizer"),
        BartTokenizerFast.from_pretrained(work / "generator_tokenizer"),
        output,
    )


@click.command(help=__doc__)
@click.option("--work", type=click.Path(path_type=Path), default=Path("work"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("checkpoint"), show_default=True)
def main(work: Path, output: Path) -> None:
    """Assemble the checkpoint."""
    run(work, output)


if __name__ == "__main__":
    main()
