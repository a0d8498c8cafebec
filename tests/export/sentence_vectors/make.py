"""Record the vectors of the sentence-transformers library, which `make test` does not install.

    pip install sentence-transformers==6.2.0 && python -m tests.export.sentence_vectors.make

The library takes no prompt "passage" in ``encode_document`` where a folder does not name "document", so it is
told the prompt's name.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.export.sentence_vectors import RECORDED
from tests.support.sentence_folders import MODELS, PASSAGES, QUESTIONS, write_sentence_folder


def library_vectors(folder: Path) -> dict[str, Any]:
    """The vectors of questions and passages, float32 [N, E], and the similarity."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    passages = [f"{title} {text}" if title else text for title, text in PASSAGES]
    prompt = next((name for name in ("document", "passage", "corpus") if model.prompts.get(name)), None)
    return {
        "questions": model.encode_query(QUESTIONS),
        "passages": model.encode_document(passages, prompt_name=prompt),
        "similarity": model.similarity_fn_name,
    }


def main() -> None:
    """Write the file of recorded vectors."""
    import sentence_transformers

    recorded: dict[str, Any] = {"sentence_transformers": sentence_transformers.__version__, "models": {}}
    with tempfile.TemporaryDirectory() as place:
        for number, (name, model) in enumerate(MODELS.items()):
            vectors = library_vectors(write_sentence_folder(Path(place, str(number)), model))
            recorded["models"][name] = {
                key: np.round(value.astype(float), 6).tolist() if isinstance(value, np.ndarray) else value
                for key, value in vectors.items()
            }
    RECORDED.write_text(json.dumps(recorded) + "\n", "utf-8")


if __name__ == "__main__":
    main()
