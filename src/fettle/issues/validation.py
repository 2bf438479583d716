"""Which problems can be told from their solutions by their tests."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fettle.config.issues import Validation
from fettle.errors import DataError
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.issues.testing import Verdicts, decides_tests, files_with_tests, verdicts
from fettle.issues.trees import Tree, tree_of
from fettle.sandbox import Sandbox

TWICE = 2
"""How often each state is tested: what differs between two runs is flaky, and tells nothing."""


@dataclass(frozen=True, slots=True)
class Validated:
    """Problems with the tests that tell, and why others were dropped."""

    instances: list[Instance] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    """By the ids of those that were dropped."""


async def validated(
    instances: Iterable[Instance],
    repository: Path,
    box: Sandbox,
    settings: Validation,
    *,
    told: Callable[[Instance, str], object] = lambda instance, why: None,
) -> Validated:
    """Run each problem's tests before and after its solution; ``told`` hears of each, with why it was dropped if so.

    Raises:
        SandboxError: the sandbox could not do its work.
    """
    found = Validated()
    at_once = asyncio.Semaphore(settings.sandbox.workers or os.cpu_count() or 1)

    async def checked(instance: Instance) -> Instance | None:
        async with at_once:
            try:
                kept, why = await _validated(instance, repository, box, settings)
            except DataError as error:
                kept, why = None, ("not applicable", error.message)
        if kept is None:
            found.dropped[why[0]] += 1
            found.reasons[instance.instance_id] = why[1]
        told(kept or instance, why[1])
        return kept

    found.instances.extend(one for one in await asyncio.gather(*map(checked, instances)) if one is not None)
    return found


async def _validated(
    instance: Instance, repository: Path, box: Sandbox, settings: Validation
) -> tuple[Instance | None, tuple[str, str]]:
    """The problem with its tests, or None and why."""
    files = files_with_tests(file.path for file in files_of(instance.test_patch) if not file.is_gone)
    if not files:
        return None, ("no tests", "its change brings no test")
    before = tree_of(repository, instance.base_commit).applied(instance.test_patch)
    after = before.applied(instance.patch)
    runs_before = [await verdicts(box, before, files, settings) for _ in range(TWICE)]
    runs_after = [await verdicts(box, after, files, settings) for _ in range(TWICE)]
    for run in runs_after:
        if run.trouble:
            return None, ("cannot be built", run.trouble)
    return with_tests(instance, runs_before, runs_after)


def with_tests(
    instance: Instance, before: list[Verdicts], after: list[Verdicts]
) -> tuple[Instance | None, tuple[str, str]]:
    """The problem with the tests that tell by what was seen in each run, or None and why."""
    steady = frozenset.intersection(*(run.passed for run in after))
    flaky = frozenset.union(*(run.passed for run in after)) - steady
    ever_before = frozenset.union(*(run.passed for run in before))
    always_before = frozenset.intersection(*(run.passed for run in before))
    flaky |= ever_before - always_before
    fail_to_pass = steady - ever_before - flaky
    if not fail_to_pass:
        return None, ("no test tells", "no test fails before the change and passes after it")
    kept = {"FAIL_TO_PASS": tuple(sorted(fail_to_pass)), "PASS_TO_PASS": tuple(sorted(steady & always_before))}
    return instance.model_copy(update=kept), ("", "")


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
