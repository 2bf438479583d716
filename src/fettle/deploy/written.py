"""Manifests as YAML, with texts of several lines as they are."""

import math
from collections.abc import Mapping
from typing import Any

import yaml


def written(*made: Mapping[str, Any]) -> str:
    """One document each, as ``kubectl apply -f`` takes them."""
    return yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


class _Dumper(yaml.SafeDumper):
    """Dumps into blocks what has lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
