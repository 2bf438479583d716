"""What a change to a problem's files earns: hidden tests decide in the sandbox, and the rest is counted beside them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fettle.config import Issues
from fettle.config.issues import MOST_OF_A_PART
from fettle.environments.base import StepResult
from fettle.issues import scores
from fettle.issues.instances import Instance
from fettle.issues.refusals import refusal
from fettle.issues.trees import Tree
from fettle.issues.validation import verdict
from fettle.rewards import explained, readable
from fettle.sandbox import sandbox


@dataclass(frozen=True, slots=True)
class Change:
    """A proposal for a problem, beside what it was made of and what solved it."""

    instance: Instance
    base: Tree
    proposed: Tree
    solution: Tree
    said: str


BESIDE: Mapping[str, Callable[[Change], float]] = MappingProxyType(
    {
        "similarity": lambda it: scores.similarity(it.base, it.proposed, it.solution),
        "location": lambda it: scores.location(it.base, it.proposed, it.solution),
        "quality": lambda it: scores.quality(it.base, it.proposed) * scores.size(it.base, it.proposed, it.solution),
        "readability": lambda it: readable(*(_program(tree, it.base, it.proposed) for tree in (it.base, it.proposed))),
        "explanation": lambda it: explained(
            it.said, statement=it.instance.problem_statement, change=it.base.patch_to(it.proposed)
        ),
    }
)
"""What a change of the program earns beside what its tests say, each part from 0 to 1."""
PARTS = ("applied", "tests", *BESIDE)
"""The components of a reward, each with its weight among the settings."""
MOST_KEPT = 4096
"""Verdicts that are remembered: a policy that knows what to write writes it again and again."""


class Judge:
    """Pays changes; the same change to a problem is tested once."""

    def __init__(self, config: Issues) -> None:
        self._credit, self._settings = config.credit, config.validation
        self._box = sandbox(config.validation.sandbox)
        self._judged: OrderedDict[tuple[str, str], asyncio.Task[tuple[float, bool]]] = OrderedDict()

    async def paid(self, instance: Instance, base: Tree, proposed: Tree, said: str) -> StepResult:
        """What a change earns, of which ``said`` is what was said about it.

        Raises:
            SandboxError: its tests could not be run.
        """
        if proposed.files == base.files:
            return nothing()
        change = Change(instance, base, proposed, base.applied(instance.patch), said)
        if refusal(base, proposed, change.solution):
            return nothing(refused=True)
        values = dict.fromkeys(PARTS, 0.0) | {"applied": 1.0}
        passed = False
        if scores.is_program(base, proposed):
            share, kept = await self._verdict(instance, base, proposed)
            passed = share == 1 and kept
            part = MOST_OF_A_PART * share * kept if self._credit.share else 0.0
            values["tests"] = 1.0 if passed else part
            values |= {name: part(change) for name, part in BESIDE.items() if getattr(self._credit, name)}
        components = {name: getattr(self._credit, name) * value for name, value in values.items()}
        return _result(components, applied=1.0, resolved=float(passed))

    async def _verdict(self, instance: Instance, base: Tree, proposed: Tree) -> tuple[float, bool]:
        """The share of failing tests that pass now, and whether the others still do; the same proposal is run once."""
        asked = (instance.instance_id, base.patch_to(proposed))
        if asked not in self._judged:
            self._judged[asked] = asyncio.ensure_future(verdict(instance, base, proposed, self._box, self._settings))
            if len(self._judged) > MOST_KEPT:
                self._judged.popitem(last=False)
        try:
            return await asyncio.shield(self._judged[asked])
        except BaseException:
            self._judged.pop(asked, None)  # a fault, or an end, says nothing of the proposal
            raise


def nothing(*, refused: bool = False) -> StepResult:
    """The end of an episode in which nothing was proposed that can be tested, or what was is ``refused``."""
    return _result(dict.fromkeys(PARTS, 0.0), refused=float(refused))


def _result(
    components: dict[str, float], *, applied: float = 0.0, resolved: float = 0.0, refused: float = 0.0
) -> StepResult:
    measured = {"issue/applied": applied, "issue/resolved": resolved, "issue/refused": refused}
    return StepResult((), sum(components.values()), True, False, components, measured)


def _program(tree: Tree, base: Tree, proposed: Tree) -> list[str]:
    """The Python that a change is in, as it is in a tree."""
    paths = sorted({*base.files, *proposed.files})
    return [
        tree.text(path) or ""
        for path in paths
        if path.endswith(".py") and base.files.get(path) != proposed.files.get(path)
    ]
