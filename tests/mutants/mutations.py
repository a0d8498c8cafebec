"""The small changes that are made to a module, each a syntax tree of its own."""

import ast
import copy
from collections.abc import Iterator
from typing import Final, NamedTuple

_SWAPS: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}
_UNTOUCHED: Final = (ast.AnnAssign, ast.Import, ast.ImportFrom, ast.Raise)
"""Statements of which only the removal is a change: types, names, and the words of an error."""


class Mutant(NamedTuple):
    """A module with one change: in ``function``, ``before`` has become ``after``."""

    function: str
    line: int
    before: str
    after: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.function}: `{self.before}` → `{self.after}`"


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module's functions, in the order of the source."""
    tree = ast.parse(source)
    for path in list(_places(tree, ())):
        node = _at(tree, path)
        for changed in _changes(node):
            mutated = copy.deepcopy(tree)
            _replace(mutated, path, changed)
            before, after = _shown(tree, path), _shown(mutated, path)
            ast.fix_missing_locations(mutated)
            yield Mutant(_function(tree, path), _line(tree, path), before, after, mutated)


Path = tuple[tuple[str, int | None], ...]
"""The way to a node: fields, and places in those that are lists."""


def _places(node: ast.AST, path: Path) -> Iterator[Path]:
    """Every node inside a function that may be changed; docstrings and annotations are not."""
    if any(name == "body" for name, _ in path[1:]):
        yield path
    if isinstance(node, _UNTOUCHED) and not (isinstance(node, ast.AnnAssign) and node.value):
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST) and not _is_guard(node, child):
                yield from _places(child, (*path, (field, place)))


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if type(node) in _SWAPS:
        yield _SWAPS[type(node)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, ast.Return) and not _is_false(node.value):
        yield ast.Return(ast.Constant(None))
    elif _is_removable(node):
        yield ast.Pass()
    elif isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if _is_guard(node, keyword):
                continue
            changed_call = copy.deepcopy(node)
            del changed_call.keywords[place]
            yield changed_call


def _is_false(value: ast.expr | None) -> bool:
    """Whether None is as good: for what is False, there is True."""
    return value is None or (isinstance(value, ast.Constant) and not value.value)


def _is_removable(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant | ast.Yield)
    return isinstance(node, ast.Raise | ast.AugAssign | ast.Assert | ast.Delete)


def _is_guard(node: ast.AST, child: ast.AST) -> bool:
    """Whether this is ``strict`` of zip, which guards what is never so."""
    is_zip = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"
    return is_zip and isinstance(child, ast.keyword) and child.arg == "strict"


def _at(tree: ast.AST, path: Path) -> ast.AST:
    node = tree
    for field, place in path:
        value = getattr(node, field)
        node = value if place is None else value[place]
    return node


def _replace(tree: ast.AST, path: Path, node: ast.AST) -> None:
    *way, (field, place) = path
    parent = _at(tree, tuple(way))
    if place is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[place] = node


def _function(tree: ast.AST, path: Path) -> str:
    nodes = (_at(tree, path[:length]) for length in range(len(path)))
    return ".".join(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef))


def _line(tree: ast.AST, path: Path) -> int:
    """The line of a node; of an operator, which has none, that of the expression."""
    nodes = (_at(tree, path[:length]) for length in range(len(path), 0, -1))
    return next(node.lineno for node in nodes if hasattr(node, "lineno"))


def _shown(tree: ast.AST, path: Path) -> str:
    """The first line of the statement around a node."""
    length = max(n for n in range(len(path) + 1) if isinstance(_at(tree, path[:n]), ast.stmt))
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(_at(tree, path[:length]))))
    return text.splitlines()[0] if text else ""
