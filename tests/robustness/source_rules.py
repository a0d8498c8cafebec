"""Rules for our own source: the walker behind test_supply.py.

It reads a file's syntax tree, follows `import ... as ...`, and reports violations.  It guards against
habits, not against an author who hides a call behind `getattr`.
"""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

# A name that must not be called, read or imported -> the reason.  A module stands for all its names.
FORBIDDEN = {
    "pickle": "unpickling runs what the file says",
    "cPickle": "unpickling runs what the file says",
    "dill": "unpickling runs what the file says",
    "cloudpickle": "unpickling runs what the file says",
    "joblib": "joblib.load unpickles",
    "shelve": "a shelf unpickles",
    "marshal": "marshal reads code",
    "pandas.read_pickle": "unpickling runs what the file says",
    "builtins.eval": "runs text",
    "builtins.exec": "runs text",
    "builtins.compile": "makes text into code",
    "builtins.__import__": "hides what is imported",
    "os.system": "is a shell",
    "os.popen": "is a shell",
    "subprocess.getoutput": "is a shell",
    "subprocess.getstatusoutput": "is a shell",
    "tempfile.mktemp": "another process can take the name first",
    "yaml.load": "makes objects that the file names",
    "yaml.full_load": "makes objects that the file names",
    "yaml.unsafe_load": "makes objects that the file names",
    "torch.hub": "downloads and runs code",
}
# Exceptions of a forbidden module may be caught.
ALLOWED = {"pickle.UnpicklingError", "pickle.PickleError"}
# The engine opens no connections.
NETWORK = (
    "asyncio", "socket", "socketserver", "ssl", "http", "urllib.request", "urllib.robotparser", "ftplib",
    "smtplib",
    "poplib", "imaplib", "telnetlib", "xmlrpc", "webbrowser", "requests", "urllib3", "httpx", "aiohttp",
    "huggingface_hub", "multiprocessing.connection", "multiprocessing.managers",
)  # fmt: skip
# Calls that, unless told, ask on the terminal whether to run code that comes with a model.
_ASKS = re.compile(r"transformers\.(Auto\w+\.from_(pretrained|config)|pipeline)")
# Methods that load code, of whatever object.
METHODS = {
    "enable_load_extension": "SQLite would run a library",
    "load_extension": "SQLite would run a library",
    "register_custom_ops_library": "onnxruntime would run a library",
}


def violations(source: str, *, network: bool = True) -> list[str]:
    """Each violation in ``source``, as ``"line: what: why"``, in order.

    ``network=False`` also forbids modules that connect to other machines.
    """
    tree = ast.parse(source)
    names = _imported(tree)
    found = {(line, what) for line, what in _walk(tree, names, network)}
    return [f"{line}: {what}" for line, what in sorted(found)]


def third_party(source: str, own: set[str], standard: frozenset[str]) -> set[str]:
    """The top-level modules of other distributions that ``source`` imports, at whatever depth."""
    tops = {dotted.split(".")[0] for node in ast.walk(ast.parse(source)) for dotted in _imports(node)}
    return tops - own - standard


def sources(folder: Path) -> list[Path]:
    """Every Python file of a folder."""
    return sorted(folder.rglob("*.py"))


def _walk(tree: ast.Module, names: dict[str, str], network: bool) -> Iterator[tuple[int, str]]:
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        for imported in _imports(node):
            yield from ((getattr(node, "lineno", 0), fault) for fault in _import_faults(imported, network))
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node, names)
            if dotted is not None and (reason := _reason(dotted)):
                yield node.lineno, f"{dotted}: {reason}"
            if dotted is not None and _ASKS.fullmatch(dotted) and node not in called:
                yield node.lineno, f"{dotted} is passed on without trust_remote_code=False"
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                yield node.lineno, f".{node.attr}: {METHODS[node.attr]}"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, fault) for fault in _call_faults(node, names))
        elif isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            yield node.lineno, "trust_remote_code: runs code that comes with a model"


def _call_faults(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "trust_remote_code" in keywords and not _is(keywords["trust_remote_code"], False):
        yield "trust_remote_code: runs code that comes with a model"
    if "shell" in keywords and not _is(keywords["shell"], False):
        yield "shell=: the text of an argument becomes a command"
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield "allow_pickle=: unpickling runs what the file says"
    if "weights_only" in keywords and not _is(keywords["weights_only"], True):
        yield "weights_only=: unpickling runs what the file says"
    dotted = _dotted(call.func, names)
    if dotted is not None and _ASKS.fullmatch(dotted) and "trust_remote_code" not in keywords:
        yield f"{dotted} without trust_remote_code=False: asks whether to run a model's code"
    if dotted == "torch.load" and "weights_only" not in keywords:
        yield "torch.load without weights_only=True: unpickling runs what the file says"
    if dotted == "numpy.load" and "allow_pickle" not in keywords:
        yield "numpy.load without allow_pickle=False: say it, whatever the default of a version is"


def _import_faults(dotted: str, network: bool) -> Iterator[str]:
    top = dotted.split(".")[0]
    # `import pickle` alone reads nothing; uses of it are reported where they are.
    if dotted != top and (reason := _reason(dotted)):
        yield f"{dotted}: {reason}"
    elif top in FORBIDDEN and top != "pickle":
        yield f"{dotted}: {FORBIDDEN[top]}"
    if not network and any(dotted == module or dotted.startswith(module + ".") for module in NETWORK):
        yield f"{dotted}: the engine talks to nobody"


def _reason(dotted: str) -> str | None:
    """Why a dotted name is forbidden, if it is; the parts of a module are, its bare name is not."""
    if dotted in ALLOWED:
        return None
    if dotted in FORBIDDEN and "." in dotted:
        return FORBIDDEN[dotted]
    parts = dotted.split(".")
    prefixes = (".".join(parts[:end]) for end in range(1, len(parts)))
    return next((FORBIDDEN[prefix] for prefix in prefixes if prefix in FORBIDDEN), None)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name, for everything imported anywhere in a file, and the builtins."""
    names = {name: f"builtins.{name}" for name in dir(builtins)} | {"builtins": "builtins"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                names[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _imports(node: ast.AST) -> list[str]:
    """The dotted names that a node imports, by a statement or by `import_module` with a string."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def _dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """``np.lib.format`` as ``numpy.lib.format``; None if it does not begin with an imported name."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return None if base is None else f"{base}.{node.attr}"
    return None


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
