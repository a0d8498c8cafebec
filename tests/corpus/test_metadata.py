"""The other fields of a record, as a passage's metadata."""

import re
from typing import Any

import pytest

from ragengine.corpus.passage import checked_passage
from ragengine.errors import PassagesError


@pytest.mark.parametrize(
    ("record", "metadata"),
    [
        ({"year": 2024, "paid": True, "none": None, "tags": ["a", "é"], "empty": ""},
         {"year": "2024", "paid": "true", "tags": '["a", "é"]', "empty": ""}),
        ({"metadata": {"owner": "data", "n": 1.5}, "url": "u"}, {"owner": "data", "n": "1.5", "url": "u"}),
        ({"metadata": "plain"}, {"metadata": "plain"}),
        ({"metadata": {}}, {}),
    ],
)  # fmt: skip
def test_other_fields_of_a_record_are_metadata(record: dict[str, Any], metadata: dict[str, str]) -> None:
    assert checked_passage({"id": "1", "title": "t", "text": "x"} | record, "f").metadata == metadata


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"owner": "a", "metadata": {"owner": "b"}},
            "f: the field 'owner' is there twice, once in 'metadata'",
        ),
        ({"": "a"}, "f: a field has the name ''"),
        ({"owner": "\ud800"}, "f: 'owner' has half a surrogate pair"),
        ({"\ud800": "a"}, "f: a field's name has half a surrogate pair"),
        ({"owner": {1, 2}}, "f: 'owner' cannot be written as JSON"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(PassagesError, match=re.escape(said)):
        checked_passage({"id": "1", "title": "t", "text": "x"} | record, "f")
