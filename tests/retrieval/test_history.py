"""Where an index came from, after changes, and read from a stranger's manifest."""

from typing import Any

import pytest

from ragengine.retrieval.history import (
    LONGEST,
    described,
    flat_history,
    of_merged,
    origins,
    with_added,
    with_deleted,
    with_synced,
)

A: dict[str, Any] = {"passages": "a.jsonl", "vectors": "a.npy"}
B: dict[str, Any] = {"passages": "b.jsonl", "faiss": "b.faiss"}


def test_changes_are_counted_and_named_in_their_order() -> None:
    added = with_added(with_added(A, "c.jsonl"), "d.jsonl")
    assert added == {**A, "added": ["c.jsonl", "d.jsonl"]}
    assert with_deleted(with_deleted(added, 3), 4) == {**added, "deleted": 7}
    assert with_deleted(A, 0) == A
    assert A == {"passages": "a.jsonl", "vectors": "a.npy"}


def test_a_merged_index_has_the_histories_of_both() -> None:
    first, second = with_deleted(with_added(A, "c.jsonl"), 1), with_deleted(with_added(B, "d.jsonl"), 2)
    both = of_merged(first, second)
    assert both == {"merged": [A, B], "added": ["c.jsonl", "d.jsonl"], "deleted": 3}
    assert of_merged(both, A) == {**both, "merged": [A, B, A]}
    assert of_merged(A, both) == {**both, "merged": [A, A, B]}
    assert origins(both) == ["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"]


def test_what_was_left_out_of_a_history_is_others() -> None:
    for before in ({"added_before": 2}, {"merged_before": 2}, {"added_before": 2, "merged_before": 2}):
        assert origins({**A, **before}) == ["a.jsonl", "others"]
    assert origins({**A, "deleted": 2}) == ["a.jsonl"]


def test_a_synced_index_holds_what_its_source_holds() -> None:
    changed = with_deleted(with_added(A, "c.jsonl"), 1)
    assert with_synced(changed, "folder") == {"passages": "folder", "vectors": "a.npy"}
    assert with_synced(of_merged(A, B), "folder") == {"passages": "folder"}


@pytest.mark.parametrize("more", [0, 1, 7])
def test_the_newest_entries_are_kept_and_the_others_counted(more: int) -> None:
    names = [f"{number}.jsonl" for number in range(LONGEST + more)]
    found = flat_history({**A, "added": names})
    assert found == {**A, "added": names[more:], **({"added_before": more} if more else {})}
    assert origins(found) == ["a.jsonl", *names[more:], *["others"][:more]]

    indexes = [{"passages": name} for name in names]
    found = flat_history({"merged": indexes})
    assert found == {"merged": indexes[more:], **({"merged_before": more} if more else {})}
    assert origins(found) == [*names[more:], *["others"][:more]]
    again = flat_history({**found, "merged": [A, *found["merged"]]})
    assert again["merged"] == indexes[more:]
    assert again["merged_before"] == more + 1


def test_what_early_versions_nested_is_flat_in_its_order() -> None:
    nested = {
        "merged": [{"merged": [A, B], "added": ["c"], "deleted": 2}, {**A, "added": ["d"], "deleted": 1}]
    }
    assert flat_history(nested) == {"merged": [A, B, A], "added": ["c", "d"], "deleted": 3}
    assert flat_history({}) == {}
    assert flat_history({"merged": []}) == {"merged": []}


@pytest.mark.parametrize("number", [-1, True, 2.0, "3", None, 1 << 48])
def test_a_number_of_a_stranger_s_is_one_or_left_out(number: Any) -> None:
    given = {**A, "deleted": number, "added_before": number, "merged_before": number}
    assert flat_history(given) == A
    assert with_deleted(given, 2) == {**A, "deleted": 2}
    assert flat_history({**A, "deleted": (1 << 48) - 1})["deleted"] == (1 << 48) - 1


def test_what_a_stranger_wrote_instead_of_texts_is_left_out() -> None:
    given = {**A, "odd": {"more": 1}, "number": 3, "added": ["c", 4, None, ["d"]], "merged": "no list"}
    assert flat_history(given) == {"merged": [A], "added": ["c"]}
    assert flat_history({"merged": [None, A, "b", 3, [B]], "added": "c"}) == {"merged": [A]}
    assert origins({"passages": 3, "added": 4, "merged": [{"passages": ["a"]}]}) == []
    assert with_added({**A, "added": "c"}, "d") == {**A, "added": ["d"]}


def test_a_history_is_told_in_one_line() -> None:
    told = described({**with_deleted(of_merged(A, B), 2), "added": ["c", "d"], "added_before": 5})
    assert told == (
        "merged: passages: a.jsonl, vectors: a.npy; passages: b.jsonl, faiss: b.faiss, deleted: 2, "
        "added: c; d, added before: 5"
    )
    assert described({}) == ""
