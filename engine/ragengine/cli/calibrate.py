"""`ragengine calibrate`: fit how far answers can be trusted, and write it beside the index."""

from pathlib import Path
from typing import Any

import click

from ragengine.cli.common import (
    device_options,
    folder_options,
    generation_options,
    given,
    placed,
    verify_option,
)
from ragengine.cli.output import print_json

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", required=False)
@click.argument("index", required=False)
@click.argument("questions", required=False, metavar="DEV.jsonl")
@folder_options
@click.option("--test", type=_PATH, metavar="FILE", help="Other questions to judge the result by.")
@click.option(
    "--error-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of wrong answers that the threshold of low_confidence allows.",
)
@click.option("--plot", type=_PATH, metavar="FILE", help="Draw reliability and risk-coverage as PNG or SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@generation_options
@device_options
@verify_option
def calibrate(
    bundle: str | None, index: str | None, questions: str | None, bundle_folder: Path | None,
    index_folder: Path | None, test: Path | None, error_rate: float, plot: Path | None, as_json: bool,
    device: Any, search_device: Any, threads: int | None, verify: Any, **settings: Any,
) -> None:  # fmt: skip
    """Fit how far answers of the model in BUNDLE from INDEX can be trusted, to DEV.jsonl.

    DEV.jsonl holds questions with answers, as for ragengine eval, and some without any.  INDEX gets the file
    calibration.json; from then on answers have a confidence.  docs/guides/confidence.md explains the figures.
    """
    model, passages, files = placed([bundle, index, questions], bundle_folder, index_folder)
    if model is None or passages is None or len(files) != 1:
        raise click.UsageError("BUNDLE, INDEX and one DEV.jsonl are needed.")
    from ragengine.calibration import calibrate as fit_and_write
    from ragengine.cli.calibration_table import print_report
    from ragengine.cli.index_progress import progress_bars

    with progress_bars() as progress:
        report = fit_and_write(
            model,
            passages,
            files[0],
            test=test,
            error_rate=error_rate,
            plot=plot,
            device=device,
            search_device=search_device,
            threads=threads,
            verify=verify,
            progress=progress,
            **given(**settings),
        )
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report, passages)
