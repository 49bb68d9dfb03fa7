"""Automatic findings about a plan's code: what a reviewer should look at first, by file and line.

The rules read the syntax tree and never run the code. They point, they do not prove: whoever wants to hide something
from them can, which is why a plan with free Python needs two reviewers, the sandbox and a dry run.

    >>> [f.rule for f in find_in_source("plan.py", "import socket")]
    ['network']
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasites.study.text import unseen
from privacy.sentences import say

Severity = Literal["high", "medium", "low"]
_ORDER = {"high": 0, "medium": 1, "low": 2}
_LONGEST_STRING = 200
_LARGEST_FILE_BYTES = 200_000

# rule -> (severity, sentence, modules whose import or use it finds)
_MODULES: Mapping[str, tuple[Severity, str, frozenset[str]]] = {
    "network": (
        "high",
        say("talks to a network; training needs none"),
        frozenset({"socket", "ssl", "http", "urllib", "requests", "httpx", "ftplib", "smtplib", "asyncio", "aiohttp"}),
    ),
    "processes": (
        "high",
        say("starts or steers other processes"),
        frozenset({"subprocess", "multiprocessing", "pty", "signal", "concurrent", "os"}),
    ),
    "files": (
        "high",
        say("reads or writes files; the records come as tensors"),
        frozenset({"io", "shutil", "tempfile", "pathlib", "glob", "mmap", "sqlite3", "zipfile", "tarfile"}),
    ),
    "native-code": (
        "high",
        say("calls native code past Python's rules"),
        frozenset({"ctypes", "cffi", "numba", "triton"}),
    ),
    "unpickling": (
        "high",
        say("loads or writes pickles, which can run any code"),
        frozenset({"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}),
    ),
    "reflection": (
        "high",
        say("looks into the interpreter, where our own code could be changed"),
        frozenset({"inspect", "gc", "importlib", "sys", "builtins", "types", "code", "runpy", "unittest"}),
    ),
    "threads": ("medium", say("uses threads or timers"), frozenset({"threading", "_thread", "sched"})),
    "clock": ("medium", say("reads the clock, through which values can leak as time"), frozenset({"time", "datetime"})),
}
_CALLS: Mapping[str, tuple[Severity, str, str]] = {
    "open": ("high", "files", say("opens a file; the records come as tensors")),
    "eval": ("high", "dynamic-code", say("runs text as code, which nobody can review")),
    "exec": ("high", "dynamic-code", say("runs text as code, which nobody can review")),
    "compile": ("high", "dynamic-code", say("makes code from text, which nobody can review")),
    "__import__": ("high", "reflection", say("imports by a computed name")),
    "globals": ("high", "reflection", say("reaches the module's names")),
    "setattr": ("high", "monkey-patching", say("sets attributes by name, and so could change our own code")),
    "delattr": ("high", "monkey-patching", say("removes attributes by name")),
    "vars": ("medium", "reflection", say("reaches an object's names")),
    "print": ("medium", "output", say("prints; the log stays here, but values do not belong in it")),
    "torch.save": ("high", "files", say("writes tensors to a file")),
    "torch.load": ("high", "unpickling", say("loads a pickle, which can run any code")),
    "torch.hub.load": ("high", "network", say("downloads code")),
    "numpy.load": ("high", "files", say("reads a file")),
    "numpy.save": ("high", "files", say("writes a file")),
    "torch.manual_seed": ("medium", "randomness", say("sets the random generator, on which noise must never depend")),
    "torch.set_default_dtype": ("medium", "global-state", say("changes a setting for all code")),
    "torch.set_grad_enabled": ("medium", "global-state", say("changes a setting for all code")),
}
_METHODS: Mapping[str, tuple[Severity, str, str]] = {
    "register_hook": ("high", "hooks", say("hooks into the backward pass, where record gradients are seen")),
    "register_forward_hook": ("high", "hooks", say("hooks into the forward pass, where records are seen")),
    "register_full_backward_hook": (
        "high",
        "hooks",
        say("hooks into the backward pass, where record gradients are seen"),
    ),
    "register_buffer": ("medium", "state", say("keeps values in the model between records")),
    "numpy": ("low", "conversion", say("takes values out of the graph; check where they go")),
    "item": ("low", "conversion", say("takes one value out of the graph; check where it goes")),
}
_LAYERS: Mapping[str, tuple[Severity, str]] = {
    "BatchNorm1d": ("high", say("mixes the records of a batch: there is no gradient per record")),
    "BatchNorm2d": ("high", say("mixes the records of a batch: there is no gradient per record")),
    "SyncBatchNorm": ("high", say("mixes the records of a batch: there is no gradient per record")),
    "InstanceNorm1d": ("medium", say("may keep running statistics over records")),
    "Dropout": ("medium", say("draws chance outside the study's randomness: a restart would not repeat")),
    "MultiheadAttention": ("medium", say("may look across records where the batch axis is not first")),
}
_REDUCTIONS = frozenset({"mean", "sum", "std", "var", "max", "min", "norm", "softmax", "cumsum", "sort", "median"})


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place to look at; ``line`` counts from 1, 0 means the whole file."""

    file: str
    line: int
    severity: Severity
    rule: str
    message: str


def find(folder: Path, names: Iterable[str]) -> tuple[Finding, ...]:
    """Return the findings about the files ``names`` of a code tree, the gravest first."""
    found: list[Finding] = []
    for name in sorted(names):
        found += _find_in_file(name, folder / name)
    return tuple(sorted(found, key=lambda f: (_ORDER[f.severity], f.file, f.line, f.rule)))


def find_in_source(name: str, source: str) -> tuple[Finding, ...]:
    """Return the findings about one Python file, line by line."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 0) or 0
        return (
            _finding(name, line, "high", "unreadable", say("is not valid Python, so nothing can be said about it")),
        )
    visitor = _Visitor(name)
    visitor.visit(tree)
    return tuple(sorted(set(visitor.found), key=lambda f: (f.line, f.rule)))


def _find_in_file(name: str, path: Path) -> Iterator[Finding]:
    data = path.read_bytes() if path.is_file() else b""
    if len(data) > _LARGEST_FILE_BYTES:
        yield _finding(name, 0, "high", "size", say("is too large to be read by a person"))
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        yield _finding(name, 0, "high", "binary", say("is not text; nobody can review it"))
        return
    hidden = next(unseen(text, besides="\n\t\r\f"), None)
    if hidden:
        line = text.count("\n", 0, hidden[0]) + 1
        yield _finding(
            name,
            line,
            "high",
            "hidden-text",
            say("has the unseen character {character}: it may not run as it reads", character=hidden[1]),
        )
    if name.endswith(".sh"):
        yield _finding(name, 0, "low", "script", say("is a shell script; it is never run here"))
    if name.endswith(".py"):
        yield from find_in_source(name, text)


def _finding(file: str, line: int, severity: Severity, rule: str, message: str) -> Finding:
    return Finding(file=file, line=line, severity=severity, rule=rule, message=message)


class _Visitor(ast.NodeVisitor):
    """Walks one file, remembering which names are modules."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._modules: dict[str, str] = {}
        self.found: list[Finding] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._modules[alias.asname or alias.name.split(".")[0]] = alias.name
            self._imported(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._imported(node, node.module or "")
        for alias in node.names:
            self._modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if alias.name == "*":
                self._add(node, "low", "star-import", say("imports names that the reader cannot see"))

    def visit_Call(self, node: ast.Call) -> None:
        name = self._dotted(node.func)
        if name in _CALLS:
            severity, rule, message = _CALLS[name]
            self._add(node, severity, rule, message)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func.attr)
        if name.rpartition(".")[2] in _LAYERS:
            severity, message = _LAYERS[name.rpartition(".")[2]]
            self._add(node, severity, "layer", message)
        if name == "getattr" and len(node.args) > 1 and not isinstance(node.args[1], ast.Constant):
            self._add(node, "high", "reflection", say("reads an attribute by a computed name"))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr.startswith("__") and node.attr.endswith("__") and node.attr not in {"__init__", "__name__"}:
            self._add(node, "high", "reflection", say("uses {name}, a way around Python's rules", name=node.attr))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assigned(target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._assigned(node.target)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._add(node, "medium", "state", say("keeps state between calls in {names}", names=", ".join(node.names)))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name == "forward" or node.name == "record_loss":
            for inner in ast.walk(node):
                self._state_in_forward(inner)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, (str, bytes)) and len(node.value) > _LONGEST_STRING and not self._is_prose(node):
            self._add(node, "medium", "hidden-content", say("holds a long text that could be code or data in disguise"))

    def _imported(self, node: ast.AST, module: str) -> None:
        top = module.split(".")[0]
        for rule, (severity, message, modules) in _MODULES.items():
            if top in modules:
                self._add(node, severity, rule, say("imports {module}: {why}", module=top, why=message))
        if top in {"privacy", "datasites", "orchestrator", "opacus"}:
            self._add(
                node,
                "high",
                "own-code",
                say("imports {module}: a plan has no business with the privacy code", module=top),
            )

    def _method(self, node: ast.Call, attribute: str) -> None:
        if attribute in _METHODS:
            severity, rule, message = _METHODS[attribute]
            self._add(node, severity, rule, message)
        if attribute in _REDUCTIONS and _over_first_axis(node):
            self._add(
                node,
                "high",
                "mixes-records",
                say("{name} over the first axis mixes the records of a batch", name=attribute),
            )

    def _assigned(self, target: ast.expr) -> None:
        if isinstance(target, ast.Attribute) and isinstance(target.value, (ast.Name, ast.Attribute)):
            root = self._dotted(target.value)
            if root.split(".")[0] in {m.split(".")[0] for m in self._modules.values()}:
                self._add(
                    target,
                    "high",
                    "monkey-patching",
                    say("changes {owner}.{name}, which is not its own", owner=root, name=target.attr),
                )

    def _state_in_forward(self, node: ast.AST) -> None:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        for target in targets:
            if (
                isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id in {"self", "model"}
            ):
                self._add(target, "high", "state", say("keeps {name} from one batch to the next", name=target.attr))

    def _dotted(self, node: ast.expr) -> str:
        """Return ``a.b.c`` with the first name replaced by the module it stands for."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ".".join(["?", *reversed(parts)])
        return ".".join([self._modules.get(node.id, node.id), *reversed(parts)])

    def _is_prose(self, node: ast.Constant) -> bool:
        text = node.value if isinstance(node.value, str) else ""
        return text.count(" ") > len(text) / 20

    def _add(self, node: ast.AST, severity: Severity, rule: str, message: str) -> None:
        self.found.append(_finding(self._file, getattr(node, "lineno", 0), severity, rule, message))


def _over_first_axis(node: ast.Call) -> bool:
    axes = [*node.args[:1], *(k.value for k in node.keywords if k.arg in {"dim", "axis"})]
    return any(isinstance(a, ast.Constant) and a.value == 0 and a.value is not False for a in axes)
