"""Examples as the sets that recipes read: conversations, episodes, preferences, and problems to learn on."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fettle.errors import DataError
from fettle.issues.examples import SYSTEM, Example
from fettle.issues.instances import Instance

Rows = list[dict[str, Any]]


def messages(example: Example, *, system: str) -> list[dict[str, str]]:
    """What is asked, after ``system`` if there is one: it stands in the place of what the text itself begins with."""
    own = example.metadata.system or SYSTEM
    asked = example.input_text.removeprefix(own).lstrip("\n") or example.input_text
    told = [{"role": "user", "content": asked}]
    return [{"role": "system", "content": system}, *told] if system else told


def conversation_rows(examples: Sequence[Example], *, system: str, min_reward: float) -> tuple[Rows, Counter[str]]:
    """Data of type ``conversations``, of what earned enough to be shown."""
    shown = [each for each in examples if each.reward >= min_reward]
    dropped = Counter({f"earned less than {min_reward:g}": len(examples) - len(shown)})
    return [{"messages": _whole(each, system)} for each in shown], +dropped


def episode_rows(examples: Sequence[Example], *, system: str, weights: Mapping[str, float] | None = None) -> Rows:
    """Data of type ``episodes``: with what each earned, times the weight of its kind of issue where there is one."""
    kinds = weights or {}
    return [
        {
            "messages": _whole(each, system),
            "reward": each.reward * kinds.get(each.metadata.issue_type, 1.0),
            "metadata": {"issue_id": each.metadata.issue_id, "problem": each.metadata.problem},
        }
        for each in examples
    ]


def preference_rows(examples: Sequence[Example], *, system: str) -> tuple[Rows, Counter[str]]:
    """Data of type ``preferences``: of what answers the same, the best against each that came to less."""
    together: dict[str, list[Example]] = defaultdict(list)
    for each in examples:
        together[each.input_text].append(each)
    rows: Rows = []
    dropped: Counter[str] = Counter()
    for alike in together.values():
        best = max(alike, key=lambda each: each.reward)
        worse = {each.output_text: each for each in alike if each.reward < best.reward}
        worse.pop(best.output_text, None)
        if not worse:
            dropped["nothing else answers the same and came to less"] += 1
        for each in worse.values():
            margin = best.reward - each.reward
            told = {"prompt": messages(each, system=system), "chosen": best.output_text, "rejected": each.output_text}
            rows.append({**told, "margin": margin})
    return rows, dropped


def problems_of(examples: Sequence[Example], problems: Sequence[Instance]) -> list[Instance]:
    """What an environment of type ``issues`` asks: the problems that the examples are of.

    Raises:
        DataError: one of them is of a problem that is not there.
    """
    known = {one.instance_id: one for one in problems}
    named = dict.fromkeys(each.metadata.problem for each in examples if each.metadata.problem)
    for name in named:
        if name not in known:
            raise DataError(f"an example is of the problem {name}, which is not among the {len(known)} problems given")
    return [known[name] for name in named]


def _whole(example: Example, system: str) -> list[dict[str, str]]:
    return [*messages(example, system=system), {"role": "assistant", "content": example.output_text}]
