"""Recipes: read from YAML and dotted overrides, checked once, written back, described for editors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fettle.config.base import Frozen
from fettle.config.document import Document, Keys, dotted, read, written
from fettle.config.explain import sentences, shown
from fettle.config.layers import laid_over
from fettle.config.runs import RunConfig
from fettle.errors import ConfigError

T = TypeVar("T", bound=Frozen)

LONGEST_ARGUMENT = 80  # characters of an override that a sentence shows


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file describes, with ``policy.lora.rank=16`` and the like laid over it.

    An override's value is YAML, items of lists are named by index (``environments.0.weight=2``), and the last word
    on a setting counts. Without a file the overrides must say everything, ``type`` included.

    Raises:
        ConfigError: one line for each thing that is wrong, naming the file and line, or the override.
    """
    run: RunConfig = _checked(RunConfig, path, overrides)
    return run


def load_as(model: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Like :func:`load`, for any one class of settings.

    Raises:
        ConfigError: as ``load`` does.
    """
    config: T = _checked(model, path, overrides)
    return config


def stages_written(path: str | Path) -> int:
    """How many stages a file describes, which need not be right; 0 where it describes one run.

    Raises:
        ConfigError: it cannot be read.
    """
    stages = _file(Path(path)).tree.get("stages")
    return len(stages) if isinstance(stages, list) else 0


def dump(config: Frozen) -> str:
    """Every setting as YAML, which loads back to an equal object."""
    return written(config.model_dump())


def leaves(config: Frozen) -> Iterator[tuple[str, type[Frozen], str, Any]]:
    """Every setting that holds no settings itself: its dotted path, the class that declares it, its name, its value."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        inner = {name: value}
        if isinstance(value, tuple) and value:
            inner = {f"{name}.{index}": item for index, item in enumerate(value)}
        elif isinstance(value, Mapping) and value:
            inner = {f"{name}.{key}": item for key, item in value.items()}
        if all(isinstance(item, Frozen) for item in inner.values()):
            for prefix, item in inner.items():
                yield from ((f"{prefix}.{path}", *rest) for path, *rest in leaves(item))
        else:
            yield name, type(config), name, value


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes, which editors complete and check them by."""
    tree = TypeAdapter(RunConfig).json_schema()
    for kind in tree["$defs"].values():
        if "type" in kind.get("properties", {}):
            kind["properties"]["type"]["description"] = kind["description"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe",
        "description": "A run of Fettle.",
        **_with_types_that_default(tree),
    }


def _with_types_that_default(node: Any) -> Any:
    """A variant with a default need not name its type, and one without must: ``oneOf`` can say neither."""
    if isinstance(node, list):
        return [_with_types_that_default(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    tree = {key: _with_types_that_default(value) for key, value in node.items()}
    if "discriminator" in tree:
        tree["anyOf"] = tree.pop("oneOf")
        if "default" not in tree:
            tree["required"] = ["type"]
    return tree


def _checked(kind: Any, path: str | Path | None, overrides: Sequence[str]) -> Any:
    document = _overridden(_file(Path(path)) if path is not None else _nothing(), overrides)
    try:
        config = TypeAdapter(kind).validate_python(document.tree)
    except ValidationError as error:
        raise ConfigError("\n".join([*document.problems, *sentences(error, kind, document)])) from error
    if document.problems:
        raise ConfigError("\n".join(document.problems))
    return config


def _nothing() -> Document:
    return Document({}, {(): "the arguments"})


def _file(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text: save it as such") from error
    document = read(text, lambda line: f"{path}:{line}")
    if not isinstance(document.tree, dict):
        got = "nothing" if document.tree is None else shown(document.tree)
        raise ConfigError(f"{document.place(())}: a recipe is a mapping of settings, such as type: rl (got {got})")
    document.places[()] = str(path)
    return document


def _overridden(document: Document, overrides: Sequence[str]) -> Document:
    """The arguments are joined before they are laid over the file, so that their order does not matter where one
    names a ``type`` and another a setting of that type.
    """
    above: dict[str, Any] = {}
    places, problems = dict(document.places), list(document.problems)
    for argument in overrides:
        try:
            keys, value = _override(argument)
            _check_items(argument, keys, laid_over(document.tree, above))
        except ConfigError as error:
            problems.append(error.message)
            continue
        problems += value.problems
        places |= {keys[:end]: _place(argument) for end in range(1, len(keys)) if keys[:end] not in places}
        places |= value.places
        above = laid_over(above, _nested(keys, value.tree))
    return Document(laid_over(document.tree, above), places, problems)


def _override(argument: str) -> tuple[Keys, Document]:
    key, equals, text = argument.partition("=")
    keys = tuple(key.split("."))
    if not equals or not all(keys):
        raise ConfigError(f"{_place(argument)}: an override is written key=value, such as optimizer.learning_rate=1e-5")
    value = read(text, lambda _: _place(argument), keys)
    value.places[keys] = _place(argument)
    return keys, value


def _check_items(argument: str, keys: Keys, tree: Any) -> None:
    for depth, key in enumerate(keys):
        if isinstance(tree, list):
            if key not in map(str, range(len(tree))):
                items = f"its items are 0 to {len(tree) - 1}" if tree else "it is empty"
                raise ConfigError(
                    f"{_place(argument)}: '{dotted(keys[:depth])}' is a list with no item {key!r}: {items}, "
                    "and others need the list given whole"
                )
            tree = tree[int(key)]
        else:
            tree = tree.get(key) if isinstance(tree, Mapping) else None


def _nested(keys: Keys, value: Any) -> dict[str, Any]:
    *outer, last = keys
    tree = {last: value}
    for key in reversed(outer):
        tree = {key: tree}
    return tree


def _place(argument: str) -> str:
    return f"argument {argument if len(argument) <= LONGEST_ARGUMENT else argument[:LONGEST_ARGUMENT] + '...'}"
