"""What a change to a problem's files earns: hidden tests decide in the sandbox, and the rest is counted beside them."""

import asyncio
import re
from collections import OrderedDict

from fettle.config import Issues
from fettle.config.issues import MOST_OF_A_PART
from fettle.environments.base import StepResult
from fettle.issues import scores
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.testing import files_with_tests, verdicts
from fettle.issues.trees import Tree
from fettle.issues.validation import resolved, scored_tree
from fettle.rewards import explained, readable
from fettle.sandbox import sandbox

PARTS = ("applied", "tests", "similarity", "location", "quality", "readability", "explanation")
"""The components of a reward, each with its weight among the settings."""
TELLTALE = re.compile(
    r"\b(os\._exit|sys\.exit|SystemExit|atexit|_?pytest|unittest|sys\.modules|sys\._getframe|inspect\.|os\.kill)\b"
)
"""What no solution here needs, and changes need that are made for tests rather than for a problem."""
MOST_KEPT = 4096
"""Verdicts that are remembered: a policy that knows what to write writes it again and again."""


class Judge:
    """Pays changes; the same change to a problem is tested once."""

    def __init__(self, config: Issues) -> None:
        self._config = config
        self._judged: OrderedDict[tuple[str, str], asyncio.Task[tuple[float, bool]]] = OrderedDict()

    async def paid(self, instance: Instance, base: Tree, proposed: Tree, said: str) -> StepResult:
        """What a change earns, of which ``said`` is what was said about it.

        Raises:
            SandboxError: its tests could not be run.
        """
        if proposed.files == base.files or _is_for_the_tests(base, proposed):
            return nothing()
        share, kept = 0.0, False
        if scores.is_program(base, proposed):
            share, kept = await self._verdict(instance, base, proposed)
        passed = share == 1 and kept
        part = MOST_OF_A_PART * share * kept if self._config.credit.share else 0.0
        values = {"applied": 1.0, "tests": 1.0 if passed else part}
        for name in PARTS:
            if name not in values and getattr(self._config.credit, name):
                values[name] = self._beside(name, instance, base, proposed, said)
        components = {name: getattr(self._config.credit, name) * values.get(name, 0.0) for name in PARTS}
        return _result(components, {"issue/applied": 1.0, "issue/resolved": float(passed)})

    def _beside(self, name: str, instance: Instance, base: Tree, proposed: Tree, said: str) -> float:
        """What one of the parts beside the tests comes to, from 0 to 1."""
        solution = base.applied(instance.patch)
        match name:
            case "similarity":
                return scores.similarity(base, proposed, solution)
            case "location":
                return scores.location(base, proposed, solution)
            case "quality":
                return scores.quality(base, proposed) * scores.size(base, proposed, solution)
            case "readability":
                return readable(*(_program(tree, base, proposed) for tree in (base, proposed)))
            case _:
                return explained(said, statement=instance.problem_statement, change=base.patch_to(proposed))

    async def _verdict(self, instance: Instance, base: Tree, proposed: Tree) -> tuple[float, bool]:
        """The share of failing tests that pass now, and whether the others still do; the same proposal is run once."""
        asked = (instance.instance_id, base.patch_to(proposed))
        if asked not in self._judged:
            self._judged[asked] = asyncio.ensure_future(self._run(instance, base, proposed))
            if len(self._judged) > MOST_KEPT:
                self._judged.popitem(last=False)
        try:
            return await asyncio.shield(self._judged[asked])
        except BaseException:
            self._judged.pop(asked, None)  # a fault, or an end, says nothing of the proposal
            raise

    async def _run(self, instance: Instance, base: Tree, proposed: Tree) -> tuple[float, bool]:
        settings = self._config.validation
        names = {name.partition("::")[0] for name in (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS)}
        tree = scored_tree(instance, base, proposed)
        run = await verdicts(sandbox(settings.sandbox), tree, files_with_tests(names), settings)
        return resolved(instance, run)


def nothing() -> StepResult:
    """The end of an episode in which nothing was proposed that can be tested."""
    return _result(dict.fromkeys(PARTS, 0.0), {"issue/applied": 0.0, "issue/resolved": 0.0})


def _result(components: dict[str, float], measured: dict[str, float]) -> StepResult:
    return StepResult((), sum(components.values()), True, False, components, measured)


def _is_for_the_tests(base: Tree, proposed: Tree) -> bool:
    """Whether a change brings what only changes need that are to fool tests."""
    brought = [line for file in files_of(base.patch_to(proposed)) for line in file.added]
    return any(TELLTALE.search(line) for line in brought)


def _program(tree: Tree, base: Tree, proposed: Tree) -> list[str]:
    """The Python that a change is in, as it is in a tree."""
    paths = sorted({*base.files, *proposed.files})
    return [
        tree.text(path) or ""
        for path in paths
        if path.endswith(".py") and base.files.get(path) != proposed.files.get(path)
    ]
