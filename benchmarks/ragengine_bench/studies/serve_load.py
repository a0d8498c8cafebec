"""How does `ragengine serve` behave under load, beside a plain FastAPI wrapper of transformers' RAG?

    python -m ragengine_bench.studies.serve_load BUNDLE INDEX QUESTIONS [--rate 1 --rate 2] [--soak MINUTES]

Requests come as a Poisson process at rising rates, whether or not those before them are answered; a latency
counts from when a request should have been sent.  Every answer has the same number of tokens.  Without
--checkpoint the wrapper has random weights of the bundle's sizes, which take as long.
"""

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from ragengine.cli.console import SafeConsole
from ragengine.cli.output import echo, print_json
from ragengine.evaluation import read_questions
from ragengine.runtime.processor import available_cores
from ragengine_bench.harness.machine import machine
from ragengine_bench.serving.arrivals import Outcome, send_at_rate

_START = 300  # seconds that a server may take to load
_SOAK_SHARE = 0.5  # of the highest rate that ragengine kept up with
_SERVE = "from ragengine.cli.main import main; main()"


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("index", type=click.Path(exists=True, path_type=Path))
@click.argument("questions", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(exists=True, path_type=Path), help="Of the bundle, for the wrapper."
)
@click.option(
    "--rate", "rates", type=float, multiple=True, help="Requests a second; repeat [default: 1 2 4 8 16 32]."
)
@click.option("--seconds", type=float, default=30, show_default=True, help="Of arrivals at each rate.")
@click.option(
    "--tokens", type=click.IntRange(1), default=5, show_default=True, help="Tokens of every answer."
)
@click.option("--num-beams", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--soak", type=float, default=0, show_default=True, help="Minutes at half of what ragengine can do."
)
@click.option("--wrapper/--no-wrapper", default=True, show_default=True, help="Measure the wrapper, too.")
@click.option(
    "--serve-option", "options", multiple=True, help="Of ragengine serve, as NAME=VALUE; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def serve_load(
    bundle: Path, index: Path, questions: Path, checkpoint: Path | None, rates: tuple[float, ...],
    seconds: float, tokens: int, num_beams: int, soak: float, wrapper: bool, options: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Measure both servers at each rate, one after the other, and ragengine's memory under a steady load."""
    texts = [question.question for question in read_questions(questions)]
    settings = {"num_beams": num_beams, "min_new_tokens": tokens, "max_new_tokens": tokens}
    chosen = sorted(rates) or [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    found: dict[str, list[Outcome]] = {}
    memory: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="ragengine-load-") as folder:
        if wrapper:
            if checkpoint is None:
                from ragengine_bench.checkpoints.bundle_shaped import write_bundle_shaped_checkpoint

                checkpoint = Path(folder) / "checkpoint"
                write_bundle_shaped_checkpoint(bundle, checkpoint)
            with _wrapper(checkpoint, index) as url:
                found["transformers"] = _measure(url, texts, settings, chosen, seconds, "transformers")
        with _ragengine(bundle, index, options) as url:
            found["ragengine"] = _measure(url, texts, settings, chosen, seconds, "ragengine")
            if soak:
                kept = [outcome.rate for outcome in found["ragengine"] if not outcome.saturated]
                rate = _SOAK_SHARE * max(kept, default=min(chosen))
                memory = _soak(url, texts, settings, rate, soak)
    if as_json:
        print_json(_content(found, memory), indent=1)
    else:
        _print(found, memory)


def _measure(
    url: str, texts: list[str], settings: dict[str, Any], rates: list[float], seconds: float, name: str
) -> list[Outcome]:
    """Rising rates, as far as one beyond the first that the server does not keep up with."""
    asyncio.run(send_at_rate(url, texts, settings, 2.0, 2.0, seed=1))  # warm
    outcomes: list[Outcome] = []
    for rate in rates:
        outcomes.append(asyncio.run(send_at_rate(url, texts, settings, rate, seconds)))
        echo(f"{name}, {rate:g} a second: p99 {outcomes[-1].percentile(99):.3f} s", err=True)
        if len(outcomes) > 1 and outcomes[-2].saturated and name != "ragengine":
            break
    return outcomes


def _soak(
    url: str, texts: list[str], settings: dict[str, Any], rate: float, minutes: float
) -> list[tuple[float, float]]:
    """Resident memory in MB over the minutes of a steady load."""
    memory, begun = [], time.monotonic()
    while (minute := (time.monotonic() - begun) / 60) < minutes:
        memory.append((minute, _resident(url)))
        asyncio.run(send_at_rate(url, texts, settings, rate, min(60, 60 * minutes), seed=int(minute)))
    return [*memory, ((time.monotonic() - begun) / 60, _resident(url))]


def _resident(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        found = re.findall(r"^rag_resident_bytes(?:\{.*\})? (\S+)$", response.read().decode(), re.MULTILINE)
    return sum(map(float, found)) / 1e6


@contextlib.contextmanager
def _ragengine(bundle: Path, index: Path, options: tuple[str, ...]) -> Iterator[str]:
    port = _free_port()
    given = [f"--{name}={value}" for name, _, value in (option.partition("=") for option in options)]
    command = ["-c", _SERVE, "serve", str(bundle), str(index), "--port", str(port), "--log-level", "warning"]
    with _server([sys.executable, *command, *given], port) as url:
        yield url


@contextlib.contextmanager
def _wrapper(checkpoint: Path, index: Path) -> Iterator[str]:
    port, threads = _free_port(), available_cores()
    module = "ragengine_bench.serving.transformers_server"
    command = [sys.executable, "-m", module, str(checkpoint), str(index), str(port), str(threads)]
    with _server(command, port) as url:
        yield url


@contextlib.contextmanager
def _server(command: list[str], port: int) -> Iterator[str]:
    """A server that is ready; it is told to end afterwards."""
    url, latest = f"http://127.0.0.1:{port}", time.monotonic() + _START
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{url}/ready", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > latest:
                        raise click.ClickException(f"{command[1:3]} did not start.") from None
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _print(found: dict[str, list[Outcome]], memory: list[tuple[float, float]]) -> None:
    table = Table(box=None, title="requests a second, and seconds of those that were answered")
    for column in ("", "offered", "answered", "p50", "p95", "p99", "429", "errors"):
        table.add_column(column, justify="left" if not column else "right")
    for name, outcomes in found.items():
        for outcome in outcomes:
            table.add_row(
                name,
                f"{outcome.rate:g}",
                f"{outcome.answered:.2f}",
                *(f"{outcome.percentile(percent):.3f}" for percent in (50, 95, 99)),
                str(outcome.statuses[429]),
                str(outcome.errors),
            )
    SafeConsole(width=110).print(table)
    if memory:
        echo("resident memory: " + ", ".join(f"{minute:.0f} min {size:.0f} MB" for minute, size in memory))


def _content(found: dict[str, list[Outcome]], memory: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "machine": machine(available_cores()),
        "rates": {
            name: [
                {
                    "offered": outcome.rate,
                    "seconds": outcome.seconds,
                    "answered": outcome.answered,
                    **{f"p{percent}": outcome.percentile(percent) for percent in (50, 95, 99)},
                    "statuses": {str(status): count for status, count in outcome.statuses.items()},
                }
                for outcome in outcomes
            ]
            for name, outcomes in found.items()
        },
        "memory_mb": memory,
    }


if __name__ == "__main__":
    serve_load()
