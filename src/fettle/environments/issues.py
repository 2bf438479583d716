"""Problems from a history: a change is proposed in edits, and hidden tests decide in the sandbox."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from fettle.config import Issues
from fettle.config.issues import MOST_OF_A_PART
from fettle.environments.base import Environment, StepResult, Suite
from fettle.environments.generated import prompt
from fettle.environments.single_turn import SingleTurn
from fettle.errors import DataError
from fettle.issues import scores
from fettle.issues.edits import edited, edits_of
from fettle.issues.instances import Instance, read_instances
from fettle.issues.patches import files_of
from fettle.issues.questions import question, shown
from fettle.issues.splits import check_apart, clusters
from fettle.issues.testing import files_with_tests, verdicts
from fettle.issues.trees import Tree, tree_of
from fettle.issues.validation import resolved, scored_tree
from fettle.randomness import key
from fettle.sandbox import sandbox
from fettle.types import Message, Task

TELLTALE = re.compile(
    r"\b(os\._exit|sys\.exit|SystemExit|atexit|_?pytest|unittest|sys\.modules|sys\._getframe|inspect\.|os\.kill)\b"
)
"""What no solution here needs, and changes need that are made for tests rather than for a problem."""
MOST_KEPT = 4096
"""Verdicts that are remembered: a policy that knows what to write writes it again and again."""


class IssuesSuite:
    """Problems of a repository, and environments that test proposals for them."""

    def __init__(self, config: Issues) -> None:
        self.name = Path(config.path).stem
        self._config = config
        training, heldout = _parted(config)
        self._instances = {one.instance_id: one for one in (*training, *heldout)}
        self._training = [self._task(one) for one in training]
        self._heldout = tuple(self._task(one) for one in heldout)
        self._judged: OrderedDict[tuple[str, str], asyncio.Task[tuple[float, bool]]] = OrderedDict()

    def training_task(self, index: int) -> Task:
        """Each problem once in as many indices as there are, in an order by chance that differs each time."""
        epoch, place = divmod(index, len(self._training))
        order = Random(key(self._config.seed, "epoch", epoch)).sample(range(len(self._training)), len(self._training))
        return self._training[order[place]]

    def heldout_tasks(self) -> Sequence[Task]:
        """The problems kept for evaluation."""
        return self._heldout

    def environment(self) -> Environment:
        """A new environment, for one proposal."""
        return SingleTurn(self._paid)

    def _base(self, instance: Instance) -> Tree:
        return tree_of(Path(self._config.repository), instance.base_commit)

    def _task(self, instance: Instance) -> Task:
        asked = question(instance, self._base(instance))
        if len(asked) > self._config.characters:
            raise DataError(
                f"{instance.instance_id} would ask {len(asked)} characters, and characters is "
                f"{self._config.characters}: leave the problem out, or raise it"
            )
        return Task(prompt(self._config.system, asked), {"instance": instance.instance_id}, self.name)

    async def _paid(self, action: Message, task: Task) -> StepResult:
        instance = self._instances[task.data["instance"]]
        base = self._base(instance)
        try:
            proposed = edited(base, edits_of(action.content), shown=shown(instance))
        except DataError:
            return _result({}, {"issue/applied": 0.0, "issue/resolved": 0.0})
        if proposed.files == base.files or _is_for_the_tests(base, proposed):
            return _result({}, {"issue/applied": 0.0, "issue/resolved": 0.0})
        share, kept = await self._verdict(instance, base, proposed)
        credit = self._config.credit
        passed = share == 1 and kept
        part = MOST_OF_A_PART * share * kept if credit.share else 0.0
        solution = base.applied(instance.patch)
        made = scores.quality(base, proposed) * scores.size(base, proposed, solution)
        components = {
            "applied": credit.applied,
            "tests": credit.tests * (1.0 if passed else part),
            "similarity": credit.similarity * scores.similarity(base, proposed, solution),
            "location": credit.location * scores.location(base, proposed, solution),
            "quality": credit.quality * made,
        }
        return _result(components, {"issue/applied": 1.0, "issue/resolved": float(passed)})

    async def _verdict(self, instance: Instance, base: Tree, proposed: Tree) -> tuple[float, bool]:
        """The share of failing tests that pass now, and whether the others still do; the same proposal is run once."""
        asked = (instance.instance_id, base.patch_to(proposed))
        if asked not in self._judged:
            self._judged[asked] = asyncio.ensure_future(self._judge(instance, base, proposed))
            if len(self._judged) > MOST_KEPT:
                self._judged.popitem(last=False)
        try:
            return await asyncio.shield(self._judged[asked])
        except BaseException:
            self._judged.pop(asked, None)  # a fault, or an end, says nothing of the proposal
            raise

    async def _judge(self, instance: Instance, base: Tree, proposed: Tree) -> tuple[float, bool]:
        settings = self._config.validation
        names = {name.partition("::")[0] for name in (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS)}
        tree = scored_tree(instance, base, proposed)
        run = await verdicts(sandbox(settings.sandbox), tree, files_with_tests(names), settings)
        return resolved(instance, run)


def suite(config: Issues) -> Suite:
    """The problems of ``config.path`` and ``config.heldout``.

    Raises:
        DataError: a file cannot be used, a problem was not validated, or one tells of another that is held out.
    """
    return IssuesSuite(config)


def _parted(config: Issues) -> tuple[list[Instance], list[Instance]]:
    """Those to train on, and as many as are held out, no two of which are alike and none of which is told of."""
    found = _validated(Path(config.path))
    apart = _validated(Path(config.heldout_path)) if config.heldout_path is not None else found
    alike = clusters(apart, likeness=config.likeness)
    order = Random(key(config.seed, "issues", "heldout")).sample(range(len(alike)), len(alike))
    heldout = [alike[at][0] for at in order[: config.heldout]]
    told = {one.instance_id for at in order[: config.heldout] for one in alike[at]} if apart is found else set()
    training = [one for one in found if one.instance_id not in told]
    if len(heldout) < config.heldout or not training:
        raise DataError(
            f"heldout is {config.heldout}, but of the problems only {len(alike)} are not alike, and one must be left"
            f" to train on: validate more, or set both heldout and evaluation.tasks to {max(1, len(alike) // 5)}"
        )
    check_apart(training, heldout, likeness=config.likeness)
    return training, heldout


def _validated(path: Path) -> list[Instance]:
    found = read_instances(path)
    for one in found:
        if not one.FAIL_TO_PASS:
            raise DataError(f"{path}: {one.instance_id} has no FAIL_TO_PASS: run fettle issues validate first")
    return found


def _is_for_the_tests(base: Tree, proposed: Tree) -> bool:
    """Whether a change brings what only changes need that are to fool tests."""
    brought = [line for file in files_of(base.patch_to(proposed)) for line in file.added]
    return any(TELLTALE.search(line) for line in brought)


def _result(components: Mapping[str, float], measured: Mapping[str, float]) -> StepResult:
    """The end of an episode. A reply that proposes nothing that can be tested earns nothing."""
    told = components or dict.fromkeys(("applied", "tests", "similarity", "location", "quality"), 0.0)
    return StepResult((), sum(told.values()), terminated=True, truncated=False, components=told, measured=measured)
