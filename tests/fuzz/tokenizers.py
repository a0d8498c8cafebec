"""Fuzz tokenizer.json, and texts for the tokenizer that was read."""

import atheris

from tests.support.paths import GOLDEN

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.bundle.manifest import TokenizerSpec
    from ragengine.tokenization import Tokenizer

from pathlib import Path

from tests.fuzz.fuzzing import fuzz

SPEC = TokenizerSpec(pad_token_id=0, max_length=64, clean_up_tokenization_spaces=True)


def read_tokenizer_file(folder: Path, data: bytes) -> None:
    """A tokenizer that can be read encodes and decodes."""
    path = folder / "tokenizer.json"
    path.write_bytes(data)
    tokenizer = Tokenizer(path, SPEC)
    (encoded,) = tokenizer.encode(["Reykjav\u00edk is a capital. \U0001f600"])
    tokenizer.decode(encoded.ids)


if __name__ == "__main__":
    fuzz(
        read_tokenizer_file, [path.read_bytes() for path in sorted(GOLDEN.glob("bundle_v4/*/tokenizer.json"))]
    )
