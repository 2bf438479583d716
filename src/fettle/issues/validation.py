"""Which problems can be told from their solutions by their tests."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fettle.config.issues import Validation
from fettle.errors import DataError
from fettle.issues.decisions import Decision
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.refusals import refusal
from fettle.issues.scores import is_program
from fettle.issues.testing import Verdicts, decides_tests, files_with_tests, verdicts
from fettle.issues.trees import Tree, tree_of
from fettle.sandbox import Sandbox

TWICE = 2
"""How often each state is tested: what differs between two runs is flaky, and tells nothing."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What was decided of problems, in their order."""

    decisions: list[Decision]

    @property
    def instances(self) -> list[Instance]:
        """Those that are kept, with the tests that tell."""
        return [one.instance for one in self.decisions if not one.kind]

    @property
    def dropped(self) -> Counter[str]:
        """How many are not, by the kind of reason."""
        return Counter(one.kind for one in self.decisions if one.kind)

    @property
    def reasons(self) -> dict[str, str]:
        """Why, by the ids of those that are not."""
        return {one.instance.instance_id: one.why for one in self.decisions if one.kind}


async def validated(
    instances: Iterable[Instance],
    repository: Path,
    box: Sandbox,
    settings: Validation,
    *,
    known: Callable[[Instance], Decision | None] = lambda instance: None,
    told: Callable[[Instance, Decision], object] = lambda instance, decision: None,
) -> Validated:
    """Run each problem's tests before and after its solution, but of those that are ``known``; ``told`` hears of each.

    Raises:
        SandboxError: the sandbox could not do its work.
    """
    at_once = asyncio.Semaphore(settings.sandbox.workers or os.cpu_count() or 1)

    async def checked(instance: Instance) -> Decision:
        decision = known(instance)
        if decision is not None:
            return decision
        async with at_once:
            try:
                decision = await _validated(instance, repository, box, settings)
            except DataError as error:
                decision = Decision(instance, "not applicable", error.message)
        told(instance, decision)
        return decision

    return Validated(list(await asyncio.gather(*map(checked, instances))))


async def _validated(instance: Instance, repository: Path, box: Sandbox, settings: Validation) -> Decision:
    files = files_with_tests(file.path for file in files_of(instance.test_patch) if not file.is_gone)
    if not files:
        return Decision(instance, "no tests", "its change brings no test")
    base = tree_of(repository, instance.base_commit)
    before = base.applied(instance.test_patch)
    after = before.applied(instance.patch)
    runs_before = [await verdicts(box, before, files, settings) for _ in range(TWICE)]
    runs_after = [await verdicts(box, after, files, settings) for _ in range(TWICE)]
    for run in runs_after:
        if run.trouble:
            return Decision(instance, "cannot be built", run.trouble)
    decision = with_tests(instance, runs_before, runs_after)
    why = "" if decision.kind else await _unpaid(decision.instance, base, box, settings)
    return Decision(instance, "not paid", why) if why else decision


async def _unpaid(instance: Instance, base: Tree, box: Sandbox, settings: Validation) -> str:
    """Why a proposal that is the solution itself would not earn what tests are worth; empty where it would."""
    solution = base.applied(instance.patch)
    why = refusal(base, solution, solution)
    if why:
        return f"its solution would be refused: {why}"
    if not is_program(base, solution):
        return "its solution leaves the program as it was"
    if await verdict(instance, base, solution, box, settings) == (1.0, True):
        return ""
    put_back = [path for path in solution.files if decides_tests(path) and solution.files[path] != base.files.get(path)]
    if put_back:
        return f"its solution changes {put_back[0]}, which no proposal may"
    return "its tests came to something else when they were run once more"


def with_tests(instance: Instance, before: list[Verdicts], after: list[Verdicts]) -> Decision:
    """The problem with the tests that tell by what was seen in each run, or why it is dropped."""
    steady = frozenset.intersection(*(run.passed for run in after))
    flaky = frozenset.union(*(run.passed for run in after)) - steady
    ever_before = frozenset.union(*(run.passed for run in before))
    always_before = frozenset.intersection(*(run.passed for run in before))
    flaky |= ever_before - always_before
    fail_to_pass = steady - ever_before - flaky
    if not fail_to_pass:
        return Decision(instance, "no test tells", "no test fails before the change and passes after it")
    kept = {"FAIL_TO_PASS": tuple(sorted(fail_to_pass)), "PASS_TO_PASS": tuple(sorted(steady & always_before))}
    return Decision(instance.model_copy(update=kept))


async def verdict(
    instance: Instance, base: Tree, proposed: Tree, box: Sandbox, settings: Validation
) -> tuple[float, bool]:
    """What the tests of a problem say of a proposal, as ``resolved`` has it.

    Raises:
        SandboxError: they could not be run; nothing is said of the proposal.
    """
    names = {name.partition("::")[0] for name in (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS)}
    tree = scored_tree(instance, base, proposed)
    return resolved(instance, await verdicts(box, tree, files_with_tests(names), settings))


def resolved(instance: Instance, run: Verdicts) -> tuple[float, bool]:
    """Of the tests that failed before, the share that passes now; and whether none that passed has come to fail."""
    if run.trouble:
        return 0.0, False
    told = [run.statuses.get(name) == "passed" for name in instance.FAIL_TO_PASS]
    kept = all(run.statuses.get(name) in ("passed", "skipped") for name in instance.PASS_TO_PASS)
    return sum(told) / max(1, len(told)), kept


def scored_tree(instance: Instance, base: Tree, proposed: Tree) -> Tree:
    """What a proposal is tested in: its files, with every test file as the problem's own author left it."""
    tests = base.applied(instance.test_patch)
    own = {file.path for file in files_of(instance.test_patch)}
    others = {path for path in {*base.files, *proposed.files} if decides_tests(path)}
    return proposed.with_files({path: tests.files.get(path) for path in own | others})
