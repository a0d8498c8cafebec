"""Random command lines, options and factory strings, made by the command line's own grammar."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import click

from ragengine.cli.main import cli
from ragengine.options import GenerationOptions

Names: TypeAlias = tuple[str, ...]
"""The words that call a command."""
LEFT_OUT: Final = ("bench", "starter", "train")
"""Commands that work for minutes, whatever they are given."""
NUMBERS: Final = (
    *(
        "0",
        "1",
        "2",
        "3",
        "-1",
        "5",
        "40",
        "4096",
        "65536",
        "1000000000",
        "2147483648",
        "9223372036854775808",
    ),
    *("0.5", "0.95", "1.0", "1.5", "-0.0", "1e-9", "1e308", "nan", "inf", "-inf"),
    *("", "abc", "1_0", "0x10", "٣", "1,5", " 1", "true", "None", "9" * 5000),
)
TEXTS: Final = (
    *(
        "",
        " ",
        "who wrote Faust?",
        "p1",
        "x" * 20_000,
        "é😀",
        "\x1b[2J",
        "\x1b]52;c;AA==\x07",
        "a\nb",
        "\u202e",
    ),
    *("[" * 5000, "{}", "null", "--", "-", "--json", "%s{0}", "../..", "$(reboot)", "\udcff"),
)
_PARTS: Final = (
    *(
        "Flat",
        "SQ8",
        "SQ4",
        "SQfp16",
        "SQbf16",
        "PQ{n}",
        "PQ{n}x{m}",
        "PQ{n}x4fs",
        "IVF{n},Flat",
        "IVF{n},PQ{n}",
    ),
    *(
        "IVF{n}_HNSW{m},Flat",
        "IVF{n}(PQ{m}),Flat",
        "OPQ{n}",
        "OPQ{n}_{m}",
        "PCA{n}",
        "RR{n}",
        "L2norm",
        "HNSW{n}",
    ),
    *("HNSW{n}_PQ{m}", "HNSW{n}_SQ8", "NSG{n}", "NSG{n},Flat", "IDMap", "IDMap2", "RFlat", "Refine(SQ8)"),
    *(
        "LSH",
        "ITQ{n}",
        "RQ{n}x{m}",
        "LSQ{n}x{m}",
        "RaBitQ",
        "IMI2x{n}",
        "ZnLattice{n}x{m}",
        "Pad{n}",
        "BIVF{n}",
    ),
)
_SIZES: Final = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 64, 65536, 2147483647, 2147483648, -1, 10**12)


@dataclass(frozen=True)
class Case:
    """One command line."""

    arguments: tuple[str, ...]

    def shown(self) -> str:
        """The command line, on one line, as Python."""
        return repr(["ragengine", *self.arguments])[:2000]


def case_of(seed: str, number: int, inputs: Path) -> Case:
    """Case ``number``; ``inputs`` holds files that are worth reading."""
    random = Random(f"{seed}:{number}")
    if number % 8 == 0:  # what is behind the checks of the words
        return Case(
            ("index", "build", *_good(inputs, "passages.jsonl"), "new", *_with_factory(random, inputs))
        )
    if number % 8 == 4:
        settings = [word for _ in range(random.randint(1, 3)) for word in ("--set", setting(random))]
        return Case(("ask", *_good(inputs, "bundle", "index"), "who?", *settings))
    path, command = random.choice(_all_commands())
    words = _arguments(random, command, inputs)
    # --watch waits for ever, as it should
    return Case((*path, *(word for word in words if word != "--watch")))


def _good(inputs: Path, *names: str) -> list[str]:
    return [str(inputs / name) for name in names]


def _with_factory(random: Random, inputs: Path) -> list[str]:
    bundle, embeddings = _good(inputs, "bundle", "embeddings.npy")
    return ["--bundle", bundle, "--embeddings", embeddings, "--factory", factory(random)]


@functools.cache
def _all_commands() -> tuple[tuple[Names, click.Command], ...]:
    return tuple(sorted(_commands(cli, ()), key=lambda found: found[0]))


def _commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands of the command line, by their names."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = None if name in LEFT_OUT else command.get_command(context, name)
        if found is not None:
            yield from _commands(found, (*path, name))


def _arguments(random: Random, command: click.Command, inputs: Path) -> list[str]:
    """Words for a command: most of the time those that it needs, and some options."""
    words = []
    for parameter in command.params:
        wanted = parameter.required or isinstance(parameter, click.Argument)
        if random.random() > (0.95 if wanted else 0.15):
            continue
        count = random.choice((1, 1, 2, 3)) if parameter.nargs == -1 else 1
        values = [value(random, parameter, inputs) for _ in range(count)]
        if isinstance(parameter, click.Argument):
            words += values
        elif getattr(parameter, "is_flag", False):
            words.append(random.choice(parameter.opts))
        else:
            words += [random.choice(parameter.opts), *values]
    if random.random() < 0.05:
        words.insert(random.randint(0, len(words)), random.choice(TEXTS))
    return [word.replace("\0", "") for word in words]


def value(random: Random, parameter: click.Parameter, inputs: Path) -> str:
    """A value that a parameter may be given: mostly of its kind, sometimes good."""
    name, kind = parameter.name or "", parameter.type
    if random.random() < 0.03:
        return random.choice(TEXTS)
    if name in ("others", "compared"):
        return setting(random)
    if name == "factory":
        return factory(random)
    if isinstance(kind, click.Choice):
        return str(random.choice([*kind.choices, "", "other", str(kind.choices[0]).upper()]))
    if isinstance(kind, click.Path | click.File):
        return path_for(random, name, inputs)
    if isinstance(kind, type(click.STRING)):
        return random.choice(TEXTS)
    return random.choice(NUMBERS)


def setting(random: Random) -> str:
    """NAME=VALUE of a generation option."""
    name = random.choice([field.name for field in fields(GenerationOptions)] * 4 + list(TEXTS))
    content = random.choice(
        [*NUMBERS, *TEXTS, "true", "false", '"token"', "[1, 2]", "[[1]]", "[-1]", '{"1": 2.0}', "[" * 60_000]
    )
    return random.choice(("{}={}", "{}={}", "{}={}", "{}", "{}=={}", "={1}")).format(name, content)


def factory(random: Random) -> str:
    """A FAISS factory string, some of whose parts and sizes are possible."""
    parts = random.choices(_PARTS, k=random.choice((1, 1, 1, 2, 2, 3)))
    if random.random() < 0.05:
        parts.append(random.choice(TEXTS))
    small = random.random() < 0.6
    sizes = [size for size in _SIZES if not small or 0 <= size <= 64]
    return ",".join(parts).replace("{n}", str(random.choice(sizes))).replace("{m}", str(random.choice(sizes)))


def path_for(random: Random, name: str, inputs: Path) -> str:
    """A path: of a file whose name begins as the parameter's, of another one, or of nothing."""
    files = sorted(path for path in inputs.iterdir() if not path.name.startswith("."))
    fitting = [path for path in files if path.name.startswith(name.split("_")[0][:5])]
    choice = random.random()
    if fitting and choice < 0.7:
        return str(random.choice(fitting))
    if choice < 0.85:
        return str(random.choice(files))
    odd = (
        "",
        ".",
        "/",
        "absent",
        "absent/file",
        "x" * 300,
        "a\nb",
        "\x1b[2J",
        os.fsdecode(b"\xff\xfe"),
    )
    return random.choice((*odd, "/dev/null", "/dev/full", "/proc/self/mem", str(inputs / "index" / "x")))
