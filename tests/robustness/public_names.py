"""Everything that docs/reference/versioning.md promises to keep, as text.

    python -m tests.robustness.public_names

writes it to public_names.txt: run it when a change of a public name is meant, and read the difference.

Signatures come from the source, so that they read the same under every version of Python and numpy.
"""

import ast
import dataclasses
import inspect
import json
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_overloads

import click

import ragengine
import ragengine_export
import ragengine_ray
import ragengine_serve
import ragengine_train
from ragengine import RagEngine, errors, evaluation, integrations, replay
from ragengine.bundle import manifest as bundle_format
from ragengine.cli.main import cli
from ragengine.confidence import model as calibration_format
from ragengine.indexing.sharded import trained
from ragengine.retrieval import manifest as index_format
from ragengine.retrieval.sharding import manifest as shards_format
from ragengine.runtime import devices
from ragengine.storage import folders
from ragengine_export import export
from ragengine_train.choices import ResultName
from tests.support.paths import ROOT

WORLDFACTS = ROOT / "examples" / "worldfacts"
PINNED = Path(__file__).with_name("public_names.txt")
_QUESTION = "What is the capital of Iceland?"
_UNCOVERED = {"bench", "demo"}
"""Commands for people at a terminal, whose options may change (docs/reference/versioning.md)."""


def render() -> str:
    """All public names, one a line, in sections."""
    sections = {
        "Python": _python(),
        "Errors": _errors(),
        "Command line": _commands(cli, "ragengine"),
        "JSON": _json(),
        "Formats": _formats(),
        "Distribution": _distribution(),
    }
    return "".join(f"# {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items())


def _python() -> Iterator[str]:
    for module in (ragengine, ragengine_export, ragengine_train, ragengine_serve):
        for name in sorted(module.__all__):
            yield from described(f"{module.__name__}.{name}", getattr(module, name))
    yield from _adapters()
    yield from _on_ray()
    choices = {
        "Device": devices.Device,
        "Verify": folders.Verify,
        "Precision": export.Precision,
        "ResultName": ResultName,
    }
    yield from (f"{name}: one of {', '.join(map(repr, get_args(kind)))}" for name, kind in choices.items())


def _adapters() -> Iterator[str]:
    """The classes of `ragengine.integrations`, from their source: each needs a framework to be imported."""
    for path in sorted(Path(integrations.__path__[0]).glob("*.py")):
        nodes = ast.parse(path.read_text("utf-8")).body
        classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        for name, node in sorted(classes.items()):
            if name.startswith("_"):
                continue
            bases = [ast.unparse(base) for base in node.bases]
            foreign = ", ".join(base for base in bases if base not in classes)
            yield f"ragengine.integrations.{path.stem}.{name}({foreign})"
            found = [classes[base] for base in bases if base in classes]
            members = {
                part.name: part
                for part in (part for cls in [*found, node] for part in cls.body)
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            for member, part in sorted(members.items()):
                if not member.startswith("_") or member == "__init__":
                    yield f"    {member}({ast.unparse(part.args)})"


def _on_ray() -> Iterator[str]:
    """The names of `ragengine_ray`, from their source: it needs ray to be imported."""
    for name in ragengine_ray.__all__:
        place = Path(ragengine_ray.__path__[0]) / ragengine_ray._MODULES[name]
        source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        (node,) = (
            part
            for part in ast.parse(source.read_text("utf-8")).body
            if isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name == name
        )
        if isinstance(node, ast.FunctionDef):
            yield f"ragengine_ray.{name}{_as_written(node)}"
            continue
        yield f"ragengine_ray.{name}: class"
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__call__"):
                yield f"    {part.name}{_as_written(part)}"


def described(name: str, value: Any) -> Iterator[str]:
    """Lines of a class with its public members, or of a function with its signature."""
    if not inspect.isclass(value):
        yield f"{name}{_signature(value)}"
        return
    frozen = " frozen" if dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen else ""
    yield f"{name}:{' dataclass' * dataclasses.is_dataclass(value)}{frozen} class"
    if dataclasses.is_dataclass(value):
        yield from (f"    {line}" for line in _fields(value))
    else:
        yield from (f"    {attribute}: attribute" for attribute in _attributes(value))
    ours = [
        base for base in reversed(value.__mro__) if base is value or base.__module__.startswith("ragengine")
    ]
    for member, found in sorted({name: part for base in ours for name, part in vars(base).items()}.items()):
        if member.startswith("_") and member not in ("__enter__", "__iter__", "__next__"):
            continue
        if isinstance(found, property):
            yield f"    {member}: property{_signature(found.fget)}"
        elif isinstance(found, (classmethod, staticmethod)):
            yield f"    {member}: {type(found).__name__}{_signature(found.__func__)}"
        elif inspect.isfunction(found):
            yield f"    {member}{_signature(found)}"
            yield from (f"    {member} (overload){_signature(one)}" for one in get_overloads(found))


def _signature(function: Any) -> str:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return _as_written(node)


def _as_written(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Parameters and result."""
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"({ast.unparse(node.args)}){returns}"


def _fields(cls: type) -> Iterator[str]:
    """A dataclass's own fields with their types as written and their defaults."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    kinds = {
        node.target.id: ast.unparse(node.annotation)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    for field in dataclasses.fields(cls):
        if field.name not in kinds:
            continue
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        made = (
            "" if field.default_factory is dataclasses.MISSING else f" = {field.default_factory.__name__}()"
        )
        yield f"{field.name}: {kinds[field.name]}{default}{made}"


def _attributes(cls: type) -> list[str]:
    """What ``__init__`` sets on ``self`` for everybody."""
    if "__init__" not in vars(cls):
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))
    return sorted(
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and not node.attr.startswith("_")
    )


def _errors() -> Iterator[str]:
    for name, value in sorted(vars(errors).items()):
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            yield f"ragengine.errors.{name}({', '.join(base.__name__ for base in value.__bases__)})"


def _commands(command: click.Command, path: str) -> Iterator[str]:
    """A command and its subcommands, with arguments, options and their defaults."""
    yield f"{path}{' COMMAND' if isinstance(command, click.Group) else ''}"
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            needed = "" if parameter.required else " (not required)"
            yield f"    {parameter.name}{' ...' if parameter.nargs == -1 else ''}{needed}"
        elif isinstance(parameter, click.Option):
            yield f"    {_option(parameter)}"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and (path != "ragengine" or name not in _UNCOVERED):
                yield from _commands(found, f"{path} {name}")


def _option(option: click.Option) -> str:
    kind = "" if option.is_flag else f" {_kind(option.type)}"
    default = option.default
    told = isinstance(default, (str, int, float)) and not isinstance(default, bool)
    return (
        " / ".join([*option.opts, *option.secondary_opts])
        + kind
        + (" [required]" if option.required else "")
        + (" [repeatable]" if option.multiple else "")
        + (f" [{default}]" if told and default != () else "")
    )


def _kind(kind: click.ParamType) -> str:
    return "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.upper()


def _json() -> Iterator[str]:
    """The keys of what ``--json`` prints, in order."""
    with RagEngine.load(WORLDFACTS / "bundle", WORLDFACTS / "index", device="cpu", threads=1) as engine:
        answer = engine.generate(_QUESTION, doc_pruning=0.01)
        asked = [evaluation.Question(_QUESTION, ("Reykjavik",), "1")]
        measured = evaluation.report(evaluation.measure(engine, asked, n_docs=5)).to_dict()
        record = replay.Record.of(engine, answer).to_dict()
    yield from (f"ask --json: {path}" for path in _paths(answer.to_dict()))
    yield from (f"eval --json: {path}" for path in _paths(measured))
    yield from (f"ask --record: {path}" for path in _paths(record) if not path.startswith("options."))


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """Every place of a JSON value: ``documents[].title``."""
    if isinstance(value, dict):
        for key, item in value.items():
            place = f"{path}.{key}" if path else str(key)
            # the names of the stages are the engine's own business
            yield from [place] if key == "timings_ms" else _paths(item, place)
    elif isinstance(value, (list, tuple)) and value:
        yield from _paths(value[0], f"{path}[]")
    else:
        yield f"{path}[]" if isinstance(value, (list, tuple)) else path


def _formats() -> Iterator[str]:
    for module, manifest in (
        (bundle_format, bundle_format.BundleManifest),
        (index_format, index_format.IndexManifest),
        (shards_format, shards_format.ShardsManifest),
    ):
        oldest = getattr(module, "OLDEST_VERSION", 1)
        yield f"{module.FORMAT}: versions {oldest} to {module.FORMAT_VERSION}"
        yield from (f"    {line}" for line in _manifest_fields(manifest))
    for module in (trained, calibration_format, replay):
        yield f"{module.FORMAT}: version {module.FORMAT_VERSION}"


def _manifest_fields(cls: type, path: str = "") -> Iterator[str]:
    """The fields of a manifest, those of the objects in it too."""
    known = {c.__name__: c for c in vars(bundle_format).values() if dataclasses.is_dataclass(c)}
    known |= {c.__name__: c for c in vars(index_format).values() if dataclasses.is_dataclass(c)}
    known |= {c.__name__: c for c in (shards_format.ShardEntry, shards_format.Structure)}
    for line in _fields(cls):
        yield path + line
        name, _, kind = line.partition(": ")
        inner = known.get(kind.removeprefix("tuple[").split(" ")[0].removesuffix(","))
        if inner is not None and inner is not cls:
            yield from _manifest_fields(inner, f"{path}{name}.")


def _distribution() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    yield f"requires-python {project['requires-python']}"
    yield f"extras {', '.join(project['optional-dependencies'])}"
    yield from (f"script {name} = {place}" for name, place in project["scripts"].items())


if __name__ == "__main__":
    PINNED.write_text(render(), "utf-8")
    print(json.dumps({"written": PINNED.name, "lines": len(PINNED.read_text("utf-8").splitlines())}))
