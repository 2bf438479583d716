"""One tree of settings laid over another."""

from collections.abc import Mapping
from typing import Any


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: mappings merge, everything else replaces.

    A mapping that names another ``type`` than the one below starts afresh, since its settings are others.

    >>> laid_over({"loss": {"type": "ppo", "clip_low": 0.2}}, {"loss": {"clip_low": 0.1}})
    {'loss': {'type': 'ppo', 'clip_low': 0.1}}
    """
    tree = dict(below)
    for key, value in above.items():
        under = tree.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping) and value.get("type", under.get("type")) == under.get("type"):
            tree[key] = laid_over(under, value)
        else:
            tree[key] = value
    return tree
