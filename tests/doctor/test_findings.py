"""Findings for people and programs, and what becomes of an exception."""

from typing import Any

from ragengine.doctor import Diagnosis, Finding
from ragengine.doctor.findings import gib, sizes
from ragengine.errors import DeviceError


def test_whatever_is_raised_ends_a_section_and_no_more() -> None:
    def half() -> Any:
        yield Finding("first", 1)
        raise KeyError("no such thing")

    diagnosis = Diagnosis("auto")
    diagnosis.examine("part", half)
    diagnosis.examine("rest", lambda: iter([Finding("second", 2, problem="It is small.")]))
    assert diagnosis.to_dict() == {
        "device": "auto",
        "usable": False,
        "reasons": ["part failed with KeyError: 'no such thing'"],
        "warnings": ["It is small."],
        "part": {"first": 1, "error": "part failed with KeyError: 'no such thing'"},
        "rest": {"second": 2},
    }


def test_the_sentence_of_a_typed_error_stands_alone() -> None:
    def broken() -> Any:
        yield Finding("first", 1)
        raise DeviceError("The card is not there;  plug it in.")

    diagnosis = Diagnosis("cuda")
    diagnosis.examine("card", broken)
    diagnosis.examine("card again", broken)
    assert diagnosis.reasons == ["The card is not there; plug it in."]


def test_sizes_are_in_gib_or_mib() -> None:
    assert gib(3 << 30) == "3.0 GiB"
    assert sizes(free=1 << 20, total=1 << 30) == "free 1.0 MiB, total 1.0 GiB"
