"""From a network class and a loss function to a code tree that hospitals can read: source, no pickles.

The source of both is taken as it stands, with everything of the user's that it names. What comes from an installed
package that hospitals' workers have (torch, numpy, ...) becomes an import; plain constants are written down; anything
else is refused by name. So a class of a notebook, a script or a module all give the same tree.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import symtable
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from datasites.strategy.own_step import STEP_FILE
from datasites.strategy.server_steps import ServerStep
from orchestrator.studies.proposing.own_code import rule_file
from privacy.errors import InvalidInput

INSTALLED = ("torch", "numpy", "math", "models", "collections", "typing", "dataclasses", "functools", "itertools")
"""The packages that an own network may import; hospitals' workers have them."""

_HEAD = '''"""The network and the loss of this study, as its scientist wrote them."""

from __future__ import annotations
'''
_RULE_HEAD = '''"""The server's rule of this study, as its scientist wrote it."""

from __future__ import annotations
'''
_RULE_TAIL = '''

def server_step():
    """Return the rule that makes the next model of the mean update."""
    return {make}
'''
_TAIL = '''

def build_model(config, *, seed):
    """Return the study's network with the initial values that the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {make}


def record_loss(model, batch):
    """Return the loss of every record, float32 [B]."""
    return {loss}
'''
_CONSTANTS = (int, float, str, bool, bytes, type(None))


def tree_of(network: Callable[..., Any], loss: Callable[..., Any] | None) -> dict[str, bytes]:
    """Return ``plan.py`` for a network and a loss.

    Args:
        network: a ``torch.nn.Module`` class, or a function that makes one; called with the study's
            :class:`models.config.ModelConfig` if it takes an argument. Its ``forward(batch)`` reads a batch
            (:mod:`models.batch`) and gives cumulative logits float32 [B, classes - 1].
        loss: ``loss(logits, label)``, or ``loss(model, batch)`` with these very names, float32 [B]; by default the
            ordinal cross-entropy.

    Raises:
        InvalidInput: no source can be found, or it names something that cannot be sent.
    """
    found = _Source()
    name = found.take(network)
    loss_name = "" if loss is None else found.take(loss)
    found.imports.setdefault("torch", "import torch")
    if not loss_name:
        found.imports["ordinal_loss"] = "from models.outcomes import ordinal_loss"
    whole = loss is not None and "model" in inspect.signature(loss).parameters
    made = f"{name}(config)" if _takes_config(network) else f"{name}()"
    valued = f"{loss_name}(model, batch)" if whole else f'{loss_name or "ordinal_loss"}(model(batch), batch["label"])'
    parts = [_HEAD, "\n".join(sorted(found.imports.values())), *found.constants.values(), *found.definitions.values()]
    return {"plan.py": ("\n\n".join(parts) + _TAIL.format(make=made, loss=valued)).encode()}


def rule_of(step: ServerStep | type[ServerStep]) -> dict[str, bytes]:
    """Return ``server_step.py`` for a server's rule of one's own.

    Args:
        step: a subclass of :class:`tessera.ServerStep`, or one object of it whose fields are plain constants.

    Raises:
        InvalidInput: it is none, no source can be found, or it names something that cannot be sent.
    """
    kind = step if inspect.isclass(step) else type(step)
    if not issubclass(kind, ServerStep) or inspect.isabstract(kind):
        raise InvalidInput(
            "expected a subclass of tessera.ServerStep with a method step(model, mean_update, state), got "
            f"{getattr(kind, '__name__', kind)!r}"
        )
    given = {} if inspect.isclass(step) else {f.name: getattr(step, f.name) for f in fields(step) if f.init}
    odd = [name for name, value in given.items() if not _constant(value)]
    if odd:
        raise InvalidInput(f"expected plain constants as fields of {kind.__name__}, and {odd[0]!r} is none")
    found = _Source((*INSTALLED, "tessera", "datasites"))
    name = found.take(kind)
    made = f"{name}({', '.join(f'{field}={value!r}' for field, value in given.items())})"
    parts = [
        _RULE_HEAD,
        "\n".join(sorted(found.imports.values())),
        *found.constants.values(),
        *found.definitions.values(),
    ]
    return {STEP_FILE: ("\n\n".join(parts) + _RULE_TAIL.format(make=made)).encode()}


def rule_tree(step: ServerStep | type[ServerStep] | Path | None) -> dict[str, bytes]:
    """Return the file of a server's rule: read as it is, or made of a class or an object; no file for None."""
    if step is None:
        return {}
    return rule_file(step) if isinstance(step, Path) else rule_of(step)


class _Source:
    """Definitions, imports and constants, in the order in which they are needed."""

    def __init__(self, installed: tuple[str, ...] = INSTALLED) -> None:
        self._installed = installed
        self.imports: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self._open: set[str] = set()

    def take(self, thing: Any) -> str:
        """Add the source of a class or function and of all that it names; return its name."""
        name = str(getattr(thing, "__name__", ""))
        try:
            source = _source_of(thing)
            names = _names(source)
        except (OSError, TypeError, SyntaxError) as error:
            raise InvalidInput(
                f"expected a class or function whose source can be read, got {name or type(thing).__name__!r}; put it "
                "into a file, or give a folder with plan.py"
            ) from error
        if not name.isidentifier() or name in ("build_model", "record_loss"):
            raise InvalidInput(f"expected a class or function with a name of its own, got {name[:40]!r}")
        self._open.add(name)
        known = {**vars(builtins), **_globals(thing)}
        for used in sorted(names - {name}):
            if used in known and not hasattr(builtins, used) and used not in self._open:
                self._add(used, known[used])
        self.definitions[name] = source.rstrip()
        return name

    def _add(self, name: str, value: Any) -> None:
        if name in self.imports or name in self.constants or name in self.definitions:
            return
        module = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        installed = module.split(".")[0].lstrip("_") in self._installed
        if isinstance(value, ModuleType) and installed:
            self.imports[name] = f"import {module} as {name}" if module != name else f"import {module}"
        elif not isinstance(value, ModuleType) and installed and hasattr(value, "__name__"):
            own = str(value.__name__)
            self.imports[name] = f"from {module} import {own}" + (f" as {name}" if own != name else "")
        elif _constant(value):
            self.constants[name] = f"{name} = {value!r}"
        elif inspect.isclass(value) or inspect.isfunction(value):
            if getattr(value, "__name__", "") != name:
                raise InvalidInput(f"{name!r} is another name of {value.__name__!r}; use one name for it")
            self.take(value)
        else:
            raise InvalidInput(
                f"the code uses {name!r}, a {type(value).__name__} of module {module or '?'}, which hospitals' "
                f"workers have not; use {', '.join(self._installed)}, plain constants, or a folder with plan.py"
            )


def _source_of(thing: Any) -> str:
    """Return the source of a class or function; of a notebook's class, which Python cannot find, by its methods."""
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        methods = (
            [value for value in vars(thing).values() if inspect.isfunction(value)] if inspect.isclass(thing) else []
        )
        for method in methods:
            whole = "".join(linecache.getlines(method.__code__.co_filename))
            for node in ast.walk(ast.parse(whole)):
                if isinstance(node, ast.ClassDef) and node.name == thing.__name__:
                    return ast.get_source_segment(whole, node) or ""
        raise


def _names(source: str) -> set[str]:
    """Return every name that a piece of source reads from outside itself; arguments and local names are none."""
    found: set[str] = set()
    waiting = [symtable.symtable(source, "plan.py", "exec")]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        outermost = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or (outermost and not symbol.is_assigned())):
                found.add(symbol.get_name())
    return found


def _globals(thing: Any) -> Mapping[str, Any]:
    if inspect.isfunction(thing):
        return {**thing.__globals__, **inspect.getclosurevars(thing).nonlocals}
    functions = [value for value in vars(thing).values() if inspect.isfunction(value)]
    found: dict[str, Any] = {}
    for function in functions:
        found |= {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    bases = {base.__name__: base for base in thing.__bases__}
    return {**bases, **found}


def _constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_constant(item) for item in value)
    return type(value) in _CONSTANTS


def _takes_config(network: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p for p in inspect.signature(network).parameters.values() if p.kind in kinds]
    return any(p.default is inspect.Parameter.empty for p in wanted) or any(p.name == "config" for p in wanted)
