"""Prompts and tokens where the parity tests' random text does not reach."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, RagConfig, RagRetriever

from ragengine.bundle.manifest import RagSpec, TokenizerSpec
from ragengine.errors import BundleError, InputError
from ragengine.pipeline.prompts import format_prompt
from ragengine.tokenization import Tokenizer

TEXT = st.text(st.sampled_from("ab \"'/?  ."), max_size=12)


@given(TEXT, TEXT, TEXT, st.sampled_from(["", " ", "answer:  "]))
def test_prompts_are_those_of_rag_retriever(title: str, text: str, question: str, prefix: str) -> None:
    prompts: list[str] = []

    class Recorder:
        def __call__(self, strings: list[str], **_: object) -> dict[str, list[str]]:
            prompts.extend(strings)
            return {"input_ids": strings, "attention_mask": strings}

    retriever = RagRetriever.__new__(RagRetriever)
    retriever.config, retriever.generator_tokenizer = RagConfig(), Recorder()
    retriever.postprocess_docs([{"title": [title], "text": [text]}], [question], prefix, 1)
    spec = RagSpec("RagTokenForGeneration", " / ", " // ", prefix, 5, 300, True, False)
    assert format_prompt(spec, title, text, question) == prompts[0]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "it", "'", "s", ".", "here"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.enable_padding(length=50)  # settings of whoever saved the file, which must not matter
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize("clean_up", [True, False])
def test_decoding_cleans_up_spaces_as_transformers_does(tokenizer_file: Path, clean_up: bool) -> None:
    ours = Tokenizer(tokenizer_file, TokenizerSpec(0, 20, clean_up))
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), clean_up_tokenization_spaces=clean_up, pad_token="<pad>"
    )
    ids = ours.encode(["it's here ."])[0].ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert (" ." in ours.decode(ids)) is not clean_up


def test_saved_padding_and_truncation_are_not_used(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer(tokenizer_file, TokenizerSpec(0, 4, False))
    short, long = tokenizer.encode(["it s here", "here here here here here"])
    assert (len(short.ids), short.truncated) == (3, False)
    assert (len(long.ids), long.truncated) == (4, True)
    ids, mask = tokenizer.pad([short.ids, long.ids])
    assert ids.tolist() == [[2, 4, 6, 0], [6, 6, 6, 6]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_lone_surrogates_are_refused_in_words(tokenizer_file: Path) -> None:
    with pytest.raises(InputError, match="lone surrogates"):
        Tokenizer(tokenizer_file, TokenizerSpec(0, 4, False)).encode(["\ud800"])


def test_a_damaged_tokenizer_is_a_bundle_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", TokenizerSpec(0, 4, False))
