"""What a program reaches for beyond its own values: modules, builtins, special methods, the inside of others."""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from fettle.issues.harmless import BEYOND, FOR_EVERYBODY, HARMLESS, INSIDES, LEADING, usable
from fettle.issues.programs import DEFINITIONS, FUNCTIONS, parsed
from fettle.issues.trees import MOST_KEPT

SPECIAL = re.compile(r"__\w+?__")
INSIDE = re.compile(INSIDES)
WORD = re.compile(r"\w+")
OF_TESTS = re.compile(r"tests?|conftest|test_.*|.*_test")
RISKY = sys.stdlib_module_names - {name.partition(".")[0] for name in HARMLESS}
FROM_OTHERS = RISKY | LEADING
"""Modules of the standard library that others than itself may not hand on."""
COMPARED_BY = frozenset({"assigned", "cmp", "compare", "eq", "metaclass", "updated"})
"""Named arguments that make values equal, or objects what they are not."""
MOST_OF_TYPE = 2
"""Arguments with which what ``type(value)`` is may be called: with three it may make a class."""
TOLD_BY = frozenset({"isinstance", "issubclass", "repr", "str"})


@dataclass(frozen=True, slots=True)
class Reaches:
    """What a program reaches for; two are compared by these words."""

    names: frozenset[str]
    special: frozenset[tuple[str, str]]
    """Its own special methods by which objects are compared or read, each with what it says."""


@dataclass(frozen=True)
class _Text:
    """A program as it is looked through."""

    parents: Mapping[ast.AST, ast.AST]
    modules: Mapping[str, frozenset[tuple[str, str]]]
    """By the names that imports give them: what is imported, and the module that it is of."""
    own: frozenset[str]
    """The words in the paths of the project's own modules."""


NOTHING = Reaches(frozenset(), frozenset())


@lru_cache(maxsize=MOST_KEPT)
def reaches(source: bytes, own: frozenset[str]) -> Reaches:
    """Those of a program; ``own`` are the words in the paths of the project's modules.

    Raises:
        SyntaxError: it is no program.
    """
    tree = parsed(source)
    nodes = list(ast.walk(tree))
    parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    text = _Text(parents, _modules(nodes), own)
    names = {name for node in nodes for name in LOOKS.get(type(node), _nothing)(node, text)}
    special = {(name, ast.dump(node)) for node in nodes for name in _made(node) if _is_special(name)}
    return Reaches(frozenset(names), frozenset(special))


def _modules(nodes: Sequence[ast.AST]) -> Mapping[str, frozenset[tuple[str, str]]]:
    found: dict[str, frozenset[tuple[str, str]]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                whole = each.name if each.asname else each.name.partition(".")[0]
                name = each.asname or whole
                found[name] = found.get(name, frozenset()) | {(whole, each.name)}
        elif isinstance(node, ast.ImportFrom):
            module = _module(node)
            for each in node.names:
                name = each.asname or each.name
                found[name] = found.get(name, frozenset()) | {(f"{module}.{each.name}", module)}
    return found


def _module(node: ast.ImportFrom) -> str:
    """Its name; that of a neighbour begins with an empty word."""
    return f".{node.module or ''}".rstrip(".") if node.level else node.module or ""


def _nothing(node: ast.AST, text: _Text) -> Iterator[str]:
    yield from ()


def _made(node: ast.AST) -> Iterator[str]:
    """The names that a statement makes, special methods among them."""
    if isinstance(node, DEFINITIONS):
        yield node.name
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = (each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
        yield from (each.id for each in names)


def _import(node: ast.Import, text: _Text) -> Iterator[str]:
    for each in node.names:
        yield from _imported(each.name, text)
        if each.name.partition(".")[0] in RISKY and not _lies_in(each.name, HARMLESS):
            yield f"import {each.name}"


def _import_from(node: ast.ImportFrom, text: _Text) -> Iterator[str]:
    module = _module(node)
    yield from _imported(module, text)
    for each in node.names:
        whole = f"{module}.{each.name}"
        if each.name == "*":
            yield f"from {module} import *"
        elif whole not in HARMLESS:
            yield from _imported(whole, text)
            yield from _beyond(whole, module, text)


def _imported(name: str, text: _Text) -> Iterator[str]:
    """Modules of tests, and packages that are neither the project's nor the standard library's."""
    root, *rest = name.split(".")
    if root in sys.stdlib_module_names:
        return
    if "testing" in (root, *rest)[:-1] or any(OF_TESTS.fullmatch(word) for word in (root, *rest)):
        yield f"import {name}"
    elif root and root not in text.own:
        yield f"import {root}"


def _lies_in(name: str, modules: Mapping[str, object]) -> bool:
    return any(each == name or each.startswith(f"{name}.") for each in modules)


def _beyond(whole: str, module: str, text: _Text) -> Iterator[str]:
    """Whether a dotted name, which begins with a module, is more than may be used of it."""
    words = whole.split(".")
    if words[0] not in sys.stdlib_module_names:
        risky = FROM_OTHERS - text.own if words[0] in ("", *text.own) else LEADING
        inner = [word for word in words[1:] if word in risky or word.startswith("_")]
        yield from [f"{whole}" for _ in inner[:1]]
        return
    for count in range(len(words), 0, -1):
        prefix = ".".join(words[:count])
        if prefix in HARMLESS and (count == len(words) or words[count] not in usable(prefix)):
            yield ".".join(words[: count + 1]) if count < len(words) else f"{prefix} itself"
            return
        if prefix in HARMLESS:
            return
    known = len(module.split(".")) if whole.startswith(module) else 1
    yield ".".join(words[: known + 1]) if known < len(words) else f"{whole} itself"


def _name(node: ast.Name, text: _Text) -> Iterator[str]:
    if _is_special(node.id) and not isinstance(text.parents.get(node), ast.Assign | ast.AnnAssign):
        yield node.id
    if node.id in text.modules and isinstance(node.ctx, ast.Load):
        attributes, top = _chain(node, text)
        for whole, module in text.modules[node.id]:
            if attributes or f"{module}.".startswith(f"{whole}.") or whole in HARMLESS:
                yield from _beyond(".".join((whole, *attributes)), module, text)
            if isinstance(top, ast.Attribute) and not isinstance(top.ctx, ast.Load):
                yield f"{'.'.join((whole, *attributes))} is set"
    if _is_local(node, text):
        return
    said = _said(text.parents.get(node)) if node.id == "getattr" else None
    if said is not None:
        yield from [f".{said}"] if said in LEADING else []
        return
    if node.id in BEYOND or (node.id == "type" and not _only_asks(node, text)):
        yield node.id


def _chain(node: ast.AST, text: _Text) -> tuple[list[str], ast.AST]:
    """The attributes that are taken of a name one after another, and the last of them."""
    attributes: list[str] = []
    while True:
        parent = text.parents.get(node)
        said = _said(parent)
        if isinstance(parent, ast.Attribute) and parent.value is node:
            attributes.append(parent.attr)
        elif isinstance(parent, ast.Call) and said is not None and parent.args[0] is node:
            attributes.append(said)
        else:
            return attributes, node
        node = parent


def _said(node: ast.AST | None) -> str | None:
    """The attribute that ``getattr`` is asked for, where it says so itself."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"):
        return None
    name = node.args[1] if len(node.args) > 1 else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _is_local(node: ast.Name, text: _Text) -> bool:
    """Whether a name is a function's own variable, and so never a builtin. In a class within it may be one."""
    inner: ast.AST = node
    scope = text.parents.get(node)
    while scope is not None and not isinstance(scope, ast.ClassDef):
        if isinstance(scope, FUNCTIONS) and inner in scope.body and node.id in _variables(scope):
            return True
        inner, scope = scope, text.parents.get(scope)
    return False


@lru_cache(maxsize=MOST_KEPT)
def _variables(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """Its arguments, and what its own statements set."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    found = {each.arg for each in named if each is not None}
    inside: list[ast.AST] = list(function.body)
    while inside:
        node = inside.pop()
        if isinstance(node, ast.Global | ast.Nonlocal):
            return frozenset(found)  # what else is set here may be another's
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if not isinstance(node, (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            inside.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def _only_asks(node: ast.Name, text: _Text) -> bool:
    """Whether ``type`` is asked what a value is, and nothing is made of the answer but another such value."""
    call = text.parents.get(node)
    if isinstance(call, ast.Call) and node in call.args:
        return isinstance(call.func, ast.Name) and call.func.id in TOLD_BY
    if not (isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords):
        return isinstance(call, ast.Compare) or _is_annotation(node, text)
    use = text.parents.get(call)
    if isinstance(use, ast.Call) and use.func is call:
        return len(use.args) <= MOST_OF_TYPE and not any(isinstance(each, ast.Starred) for each in use.args)
    if isinstance(use, ast.Call):
        return isinstance(use.func, ast.Name) and use.func.id in TOLD_BY
    return isinstance(use, ast.Compare | ast.Attribute | ast.FormattedValue) and not isinstance(
        call.args[0], ast.Starred
    )


def _is_annotation(node: ast.AST, text: _Text) -> bool:
    parent = text.parents.get(node)
    while isinstance(parent, ast.Subscript | ast.BinOp | ast.Tuple):
        node, parent = parent, text.parents.get(parent)
    return isinstance(parent, ast.arg) or node in (
        getattr(parent, "annotation", None),
        getattr(parent, "returns", None),
    )


def _attribute(node: ast.Attribute, text: _Text) -> Iterator[str]:
    if _is_inside(node.attr) or (node.attr in LEADING and node.attr not in text.own):
        yield f".{node.attr}" if isinstance(node.ctx, ast.Load) else f".{node.attr} is set"
    if node.attr in ("format", "format_map") and not isinstance(node.value, ast.Constant):
        yield f".{node.attr} of a computed text"


def _is_inside(name: str) -> bool:
    return _is_special(name) or INSIDE.fullmatch(name) is not None


def _is_special(name: str) -> bool:
    return SPECIAL.fullmatch(name) is not None and name not in FOR_EVERYBODY


def _constant(node: ast.Constant, text: _Text) -> Iterator[str]:
    """Texts that name what is inside, where they are more than a remark."""
    if isinstance(node.value, str) and not isinstance(text.parents.get(node), ast.Expr):
        words = WORD.findall(node.value) if "{" in node.value else [node.value]
        said = {*SPECIAL.findall(node.value), *(word for word in words if INSIDE.fullmatch(word))}
        yield from (f"the text {word!r}" for word in said - FOR_EVERYBODY)


def _keyword(node: ast.keyword, text: _Text) -> Iterator[str]:
    if node.arg is not None and (node.arg in COMPARED_BY or _is_special(node.arg)):
        yield f"{node.arg}="


def _pattern(node: ast.MatchClass, text: _Text) -> Iterator[str]:
    yield from (f".{name}" for name in node.kwd_attrs if _is_inside(name))


def _bound(node: ast.AST, text: _Text) -> Iterator[str]:
    """Special names that are set without a statement of their own."""
    said = (value for _, value in ast.iter_fields(node) if isinstance(value, str))
    yield from (f"{name} is set" for name in said if _is_special(name))


LOOKS: Mapping[type[ast.AST], Callable[..., Iterator[str]]] = MappingProxyType(
    {
        ast.Import: _import,
        ast.ImportFrom: _import_from,
        ast.Name: _name,
        ast.Attribute: _attribute,
        ast.Constant: _constant,
        ast.keyword: _keyword,
        ast.MatchClass: _pattern,
        **dict.fromkeys((ast.alias, ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping), _bound),
    }
)
