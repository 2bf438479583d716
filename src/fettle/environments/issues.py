"""Problems from a history: a change is proposed in edits or through tools, and hidden tests decide."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from random import Random

from fettle.config import Issues
from fettle.environments.base import Environment, StepResult, Suite
from fettle.environments.generated import prompt
from fettle.environments.issues_judged import Judge, nothing
from fettle.environments.issues_tools import IssueTools, WorkTree
from fettle.environments.single_turn import SingleTurn
from fettle.errors import DataError
from fettle.issues.edits import edited, edits_of, without_edits
from fettle.issues.git import Repository
from fettle.issues.instances import Instance, read_instances
from fettle.issues.questions import beyond_edits, question, shown
from fettle.issues.records import moment
from fettle.issues.splits import check_apart, clusters
from fettle.issues.trees import Tree, tree_of
from fettle.randomness import key
from fettle.types import Message, Task

logger = logging.getLogger(__name__)


class IssuesSuite:
    """Problems of a repository, and environments that test proposals for them."""

    def __init__(self, config: Issues) -> None:
        self.name = Path(config.path).stem
        self._config = config
        training, heldout = _parted(config)
        self._instances = {one.instance_id: one for one in (*training, *heldout)}
        self._training = [self._task(one) for one in training]
        self._heldout = tuple(self._task(one) for one in heldout)
        _check_past(training, heldout, config)
        self._judge = Judge(config)

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
        if self._config.tools is not None:
            return IssueTools(self._config.tools, self._work, self._left)
        return SingleTurn(self._paid)

    def _base(self, instance: Instance) -> Tree:
        return tree_of(Path(self._config.repository), instance.base_commit)

    def _task(self, instance: Instance) -> Task:
        tools = self._config.tools
        system = self._config.system if tools is None else tools.system
        asked = instance.problem_statement
        if tools is None:
            base = tree_of(Path(self._config.repository), instance.base_commit, shown(instance))
            asked = question(instance, base, numbered=self._config.numbered)
        if len(asked) > self._config.characters:
            raise DataError(
                f"{instance.instance_id} would ask {len(asked)} characters, and characters is "
                f"{self._config.characters}: leave the problem out, or raise it"
            )
        return Task(prompt(system, asked), {"instance": instance.instance_id}, self.name)

    async def _paid(self, action: Message, task: Task) -> StepResult:
        instance = self._instances[task.data["instance"]]
        base = self._base(instance)
        try:
            proposed = edited(base, edits_of(action.content), shown=shown(instance))
        except DataError:
            return nothing()
        return await self._judge.paid(instance, base, proposed, without_edits(action.content))

    def _work(self, task: Task) -> WorkTree:
        return WorkTree(self._base(self._instances[task.data["instance"]]), self._config.validation)

    async def _left(self, task: Task, proposed: Tree | None, said: str) -> StepResult:
        instance = self._instances[task.data["instance"]]
        if proposed is None:
            return nothing()
        return await self._judge.paid(instance, self._base(instance), proposed, said)


def suite(config: Issues) -> Suite:
    """The problems of ``config.path`` and ``config.heldout``.

    Raises:
        DataError: a file cannot be used, a problem was not validated, or one tells of another that is held out.
    """
    return IssuesSuite(config)


def _check_past(training: Sequence[Instance], heldout: Sequence[Instance], config: Issues) -> None:
    """Tell of held-out problems that are mended already in files that may be looked at to solve others.

    Raises:
        DataError: there are some, though they were held out as those that came last.
    """
    seen = Repository(Path(config.repository)).ancestors([one.base_commit for one in training])
    mended = [one.instance_id for one in heldout if one.commit in seen]
    if not mended or config.tools is None:
        return
    if config.heldout_path is not None and max(map(_at, training)) < min(map(_at, heldout)):
        raise DataError(
            f"{len(mended)} held-out problems came last, such as {mended[0]}, and yet are mended in the files of"
            " others, which were solved later: leave these others out of the problems to train on"
        )
    told = "%d of %d held-out problems are mended in the files of problems to train on: split by=time where it matters"
    logger.warning(told, len(mended), len(heldout))


def _at(instance: Instance) -> datetime:
    return moment(instance.created_at, place=f"created_at of {instance.instance_id}")


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
    beyond = {one.instance_id: why for one in found if (why := beyond_edits(one))}
    if len(beyond) == len(found):
        raise DataError(
            f"{path}: no problem can be solved by edits; {found[0].instance_id} {beyond[found[0].instance_id]}"
        )
    if beyond:
        first = next(iter(beyond))
        told = "%s: %d of %d problems are left out, which no edits solve; %s %s"
        logger.warning(told, path, len(beyond), len(found), first, beyond[first])
    return [one for one in found if one.instance_id not in beyond]
