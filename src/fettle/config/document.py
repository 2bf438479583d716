"""Settings as text: YAML in, with the place of every setting, and YAML out.

Plain words are read as YAML 1.2 reads them: only ``true`` and ``false`` are switches, ``1e-5`` is a number, and
dates stay texts. Keys are always texts, and the types that YAML can name (``!!set``, ``!!python/...``) are refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import yaml

from fettle.errors import ConfigError

Keys = tuple[str, ...]
"""The way to a setting: the keys of mappings, and the indices of lists in digits."""

YAML = "tag:yaml.org,2002:"

PLAIN: Mapping[str, tuple[re.Pattern[str], Callable[[str], Any]]] = MappingProxyType(
    {
        "null": (re.compile(r"~|null|Null|NULL|"), lambda _: None),
        "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
        "int": (re.compile(r"[-+]?(0|[1-9][0-9]*)"), int),
        "float": (re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"), float),
        "inf": (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: -math.inf if text[0] == "-" else math.inf),
        "nan": (re.compile(r"\.(nan|NaN|NAN)"), lambda _: math.nan),
    }
)
"""What an unquoted word may be besides a text; the first pattern that fits all of it decides."""


class Loader(yaml.SafeLoader):
    """Tells unquoted words by ``PLAIN`` alone."""

    yaml_implicit_resolvers = {}


class Dumper(yaml.SafeDumper):
    """Quotes every text that some reader, this one or one of YAML 1.1, would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Equal parts are written out each time."""
        return True


def _text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """On one line: YAML writes some breaks as they are, and reads them as others."""
    return dumper.represent_scalar(YAML + "str", text, style=None if text.splitlines() in ([], [text]) else '"')


Dumper.add_representer(str, _text)

for _name, (_pattern, _) in PLAIN.items():
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    Loader.add_implicit_resolver(YAML + _name, _whole, None)
    Dumper.add_implicit_resolver(YAML + _name, _whole, None)


@dataclass
class Document:
    """A tree of settings, the place where each was given, and what is wrong with how it is written."""

    tree: Any = None
    places: dict[Keys, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def place(self, keys: Keys) -> str:
        """Where the setting was given, or else the nearest one around it."""
        return next(self.places[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self.places)


def read(text: str, place: Callable[[int], str], keys: Keys = ()) -> Document:
    """The settings in a text; ``place`` names a line of it, and ``keys`` leads to where the text belongs.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"{error.context or ''} {error.problem or ''}".strip()
        raise ConfigError(f"{place(mark.line + 1 if mark else 1)}: this is not YAML: {what}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{place(line)}: this is not YAML: it holds U+{error.character:04X}") from error
    document = Document()
    if node is None:
        document.places[keys] = place(1)
    else:
        document.tree = _Reading(document, place).value(node, keys, within=())
    return document


def written(tree: Any) -> str:
    """YAML that ``read`` reads back to an equal tree."""
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


def dotted(keys: Keys) -> str:
    """``optimizer.learning_rate``, as an override names it."""
    return ".".join(keys)


class _Reading:
    """A walk over the nodes of a text that fills in a document."""

    def __init__(self, document: Document, place: Callable[[int], str]) -> None:
        self._document = document
        self._place = place

    def value(self, node: yaml.Node, keys: Keys, within: tuple[yaml.Node, ...]) -> Any:
        """What a node stands for; ``within`` are the nodes around it."""
        self._document.places.setdefault(keys, self._at(node))
        if node in within:
            return self._refused(node, f"'{dotted(keys)}' holds itself, by an alias: write it out")
        if isinstance(node, yaml.MappingNode) and node.tag == YAML + "map":
            return self._mapping(node, keys, (*within, node))
        if isinstance(node, yaml.SequenceNode) and node.tag == YAML + "seq":
            items = enumerate(node.value)
            return [self.value(item, (*keys, str(index)), (*within, node)) for index, item in items]
        name = node.tag.removeprefix(YAML)
        if isinstance(node, yaml.ScalarNode) and name == "str":
            return node.value
        if isinstance(node, yaml.ScalarNode) and name in PLAIN and PLAIN[name][0].fullmatch(node.value):
            return PLAIN[name][1](node.value)
        return self._refused(node, f"{node.tag.replace(YAML, '!!')} is not for settings: leave the tag out")

    def _mapping(self, node: yaml.MappingNode, keys: Keys, within: tuple[yaml.Node, ...]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refused(key, "a list or a mapping stands where a key should: a key is a word")
                continue
            here = (*keys, key.value)
            if key.value in tree:
                self._refused(key, f"'{dotted(here)}' is given twice{self._earlier(key, here)}: keep one")
            self._document.places[here] = self._at(key)
            tree[key.value] = self.value(value, here, within)
        return tree

    def _earlier(self, node: yaml.Node, keys: Keys) -> str:
        first = self._document.places[keys]
        return "" if first == self._at(node) else f", first at {first}"

    def _refused(self, node: yaml.Node, why: str) -> None:
        self._document.problems.append(f"{self._at(node)}: {why}")

    def _at(self, node: yaml.Node) -> str:
        return self._place(node.start_mark.line + 1)
