"""The reports of one phase of a long job."""

from ragengine.runtime.progress import phase_report, silent


def test_a_phase_reports_under_its_name() -> None:
    seen: list[tuple[str, int, int | None]] = []
    report = phase_report(lambda *said: seen.append(said), "train")
    report(1, None)
    report(2, 2)
    assert seen == [("train", 1, None), ("train", 2, 2)]


def test_without_a_callback_nobody_is_told() -> None:
    assert phase_report(None, "train") is silent
    silent(1, None)
