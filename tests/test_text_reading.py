"""Long texts are read piece by piece and have the tokens that the whole text has."""

import contextlib
import random
import time
from pathlib import Path
from typing import Literal

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragengine import text_reading
from ragengine.bundle.manifest import TokenizerSpec
from ragengine.errors import CancelledError, DeadlineError
from ragengine.runtime.cancellation import Stop
from ragengine.text_reading import Cuts, TextReading
from ragengine.tokenization import Tokenizer
from tests.support.paths import GOLDEN, ROOT

WORDPIECE = ["golden", "worldfacts", "cased", "accents kept", "ideographs kept", "no rules", "rstrip"]
BPE = ["golden", "worldfacts", "prefix space", "rstrip"]
FOLDERS = {"golden": GOLDEN / "bundle_v4", "worldfacts": ROOT / "examples/worldfacts/bundle"}

Side = Literal["right", "left"]

FRAGMENTS = [
    "a", "the", "who wrote", " ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000",
    "\x0b", "\x00", "\x00\x01", "\u200b", "\ufeff", "\ufffd", "\u0301", "\u0345", "e\u0301",
    "\u00e9", "\u0130", "\u1e9e", "\u03a3", "\u212b", "\uac00", "\u1100\u1161", "\u4e2d",
    "\u4e2d\u6587", "\uf900", "\u3042\u306e", "\u3002", "\u3001", "\uff0c", "\u0e44\u0e17\u0e22",
    "\U0001f600", "\U0001f468\u200d\U0001f469", "\U00020000", "'", "'s", "'re", "it's", "'l", "l",
    "-", "--", "...", ".", ",", "_", "/", "\\", "\"", "(", "\u2014", "\u037e", "\u2260", "1", "12",
    "3.5", "\u00bd", "\u0663", "<mask>", "<mask", "mask>", "<s>", "</s>", "<pad>", "[SEP]", "[SEP",
    "SEP]", "[CLS]", "[UNK]", "[MASK]", "[", "]", "<", ">", ".Z", ".a,b", ".a",
]  # fmt: skip


def texts(*repeats: int) -> st.SearchStrategy[str]:
    """Fragments, each repeated as often as one of ``repeats`` says."""
    parts = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(repeats)), max_size=12)
    return parts.map(lambda chosen: "".join(text * times for text, times in chosen))


TEXTS = texts(1, 1, 1, 1, 2, 3, 7, 40, 130, 700)
# What truncation cuts off a pair, the library returns in all combinations: short ones, or it never ends.
PARTS = texts(1, 1, 1, 2, 3, 20, 130)
SIDES: st.SearchStrategy[Side] = st.sampled_from(["right", "left"])
EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(kind: str, variant: str, folder: Path) -> Path:
    """The `tokenizer.json` of a bundle's encoder or generator, or a variant of it."""
    part = "question_encoder" if kind == "WordPiece" else "generator"
    backend = tokenizers.Tokenizer.from_file(
        str(FOLDERS.get(variant, FOLDERS["golden"]) / part / "tokenizer.json")
    )
    if variant == "no rules":
        backend.normalizer = None
    elif variant in ("cased", "accents kept", "ideographs kept"):
        backend.normalizer = tokenizers.normalizers.BertNormalizer(
            lowercase=variant != "cased",
            strip_accents=False if variant == "accents kept" else None,
            handle_chinese_chars=variant != "ideographs kept",
        )
    elif variant == "prefix space":
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif variant == "rstrip":
        backend.add_special_tokens([tokenizers.AddedToken(".Z", rstrip=True), tokenizers.AddedToken(".a,b")])
    backend.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


class Both:
    """Our tokenizer, and the library's own with its truncation."""

    def __init__(self, file: Path, longest: int, side: Side = "right", *, split: bool = False) -> None:
        self.ours = Tokenizer(file, TokenizerSpec(0, longest, False, side, split))
        self.whole = tokenizers.Tokenizer.from_file(str(file))
        self.whole.no_padding()
        self.whole.enable_truncation(longest, direction=side)
        self.whole.encode_special_tokens = split

    def check(self, texts: list[str] | list[tuple[str, str]]) -> None:
        expected = self.whole.encode_batch(texts)
        found = self.ours.encode(texts)
        assert [one.ids for one in found] == [one.ids for one in expected]
        assert [one.truncated for one in found] == [bool(one.overflowing) for one in expected]


@pytest.fixture(params=[f"WordPiece, {one}" for one in WORDPIECE] + [f"BPE, {one}" for one in BPE])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokenizers whose pieces are short, so that short texts have many."""
    kind, variant = request.param.split(", ")
    monkeypatch.setattr(text_reading, "_FIRST_PIECE", 1)
    if kind == "WordPiece":  # exact whatever the longest piece is
        monkeypatch.setattr(text_reading, "_LONGEST_PIECE", 8)
    path = changed(kind, variant, tmp_path)
    assert Cuts.of(tokenizers.Tokenizer.from_file(str(path)))
    return path


@EXAMPLES
@given(data=st.data())
def test_tokens_are_those_of_the_whole_text(file: Path, data: st.DataObject) -> None:
    both = Both(file, data.draw(st.integers(5, 24)), data.draw(SIDES), split=data.draw(st.booleans()))
    both.check(data.draw(st.lists(TEXTS, min_size=1, max_size=4)))


@EXAMPLES
@given(data=st.data())
def test_pairs_are_cut_as_the_library_cuts_them(file: Path, data: st.DataObject) -> None:
    """Also where both are too long: then their whole lengths decide."""
    both = Both(file, data.draw(st.integers(24, 60)), data.draw(SIDES), split=data.draw(st.booleans()))
    both.check(data.draw(st.lists(st.tuples(PARTS, PARTS), min_size=1, max_size=3)))


@EXAMPLES
@given(data=st.data())
def test_bare_tokens_are_those_of_the_whole_text(file: Path, data: st.DataObject) -> None:
    both, text, longest = Both(file, 24), data.draw(TEXTS), data.draw(st.integers(1, 3000))
    both.whole.no_truncation()
    expected = both.whole.encode(text, add_special_tokens=False).ids
    assert both.ours.encode_bare([text], longest) == [expected[:longest]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", ["golden", "worldfacts"])
def test_a_word_without_end_has_the_tokens_of_the_whole(
    tmp_path: Path, variant: str, seed: int, side: Side
) -> None:
    """Byte-level BPE merges within a word of any length; what is kept is far from where it was cut."""
    random.seed(seed)
    both = Both(changed("BPE", variant, tmp_path), 24, side)
    for letters in ("a", "ab", "the", "-", " ", "\u00e9\u4e2d", "abcdefghijklmnopqrstuvwxyz"):
        both.check(["".join(random.choices(letters, k=40_000))])


def test_only_as_much_is_read_as_is_kept(tmp_path: Path) -> None:
    tokenizer = Tokenizer(changed("BPE", "worldfacts", tmp_path), TokenizerSpec(0, 300, False))
    reading = TextReading("who wrote the book? " * 500_000, 300)
    piece = reading.next_piece(Cuts.of(tokenizer._tokenizer))
    assert 300 < len(piece) <= 8 * 300


@pytest.mark.parametrize(("kind", "side"), [("WordPiece", "right"), ("BPE", "right"), ("BPE", "left")])
@pytest.mark.parametrize(
    "unit",
    ["word ", " ", "\x00", "\u0301", "a", "\u4e2d", "\u3042", "[SEP]", "\n", "a\u200b", "\ud7a3", "=-"],
)
def test_ten_megabytes_end_at_a_deadline(tmp_path: Path, kind: str, unit: str, side: Side) -> None:
    tokenizer = Tokenizer(changed(kind, "worldfacts", tmp_path), TokenizerSpec(0, 301, False, side))
    text = unit * (10_000_000 // len(unit))
    began = time.monotonic()
    for texts in ([text, text], [(text, text)]):
        with contextlib.suppress(DeadlineError):
            tokenizer.encode(texts, Stop(0.5))
    assert time.monotonic() - began < 5


def test_a_cancelled_reading_ends(tmp_path: Path) -> None:
    class Set:
        def is_set(self) -> bool:
            return True

    tokenizer = Tokenizer(changed("BPE", "golden", tmp_path), TokenizerSpec(0, 24, False))
    with pytest.raises(CancelledError, match=r"^The call was cancelled while texts were tokenized\.$"):
        tokenizer.encode(["a"], Stop(None, Set()))


def test_tokenizers_of_other_kinds_read_texts_whole(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["<unk>", "a", "b"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Cuts.of(backend) is None
    Both(tmp_path / "tokenizer.json", 5).check(["a b a", "a b " * 5000])
