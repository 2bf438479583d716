"""One tree of settings laid over another."""

from collections.abc import Mapping
from typing import Any


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``: mappings merge, everything else replaces.

    A mapping that names another ``type`` than the one below starts afresh, since its settings are others. Over a
    list, a mapping whose keys are indices of it changes those items.

    >>> laid_over({"loss": {"type": "ppo", "clip_low": 0.2}}, {"loss": {"clip_low": 0.1}})
    {'loss': {'type': 'ppo', 'clip_low': 0.1}}
    >>> laid_over({"stages": [{"steps": 1}, {"steps": 2}]}, {"stages": {"1": {"steps": 9}}})
    {'stages': [{'steps': 1}, {'steps': 9}]}
    """
    tree = dict(below)
    for key, value in above.items():
        tree[key] = _settled(tree[key], value) if key in tree else value
    return tree


def _settled(below: Any, above: Any) -> Any:
    if not isinstance(above, Mapping):
        return above
    if isinstance(below, Mapping):
        one_type = above.get("type", below.get("type")) == below.get("type", above.get("type"))
        return laid_over(below, above) if one_type else above
    if isinstance(below, list):
        items = {str(index): item for index, item in enumerate(below)}
        return list(laid_over(items, above).values()) if above.keys() <= items.keys() else above
    return above
