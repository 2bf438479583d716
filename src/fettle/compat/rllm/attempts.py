"""Attempts at problems, judged by their hidden tests in the sandbox, and by nothing else."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from fettle.config import IssueCredit, Issues, Validation
from fettle.environments.issues_judged import Judge
from fettle.errors import DataError, did_you_mean
from fettle.issues.edits import edited, edits_of, without_edits
from fettle.issues.instances import Instance, read_instances
from fettle.issues.questions import question, shown, solution
from fettle.issues.trajectories import IssueTrajectory, Outcome, Step, attempt
from fettle.issues.trees import Tree, tree_of

PASS_ALONE = IssueCredit(tests=1, applied=0, similarity=0, location=0, quality=0)


async def attempts(
    path: Path, repository: Path, replies: Mapping[str, str] | None, settings: Validation
) -> list[IssueTrajectory]:
    """An attempt at each problem of a file that there is a reply for, by its id; without, by its history's solution.

    Raises:
        DataError: a problem was not validated, or a reply is to none of them.
        SandboxError: the sandbox could not do its work.
    """
    problems = read_instances(path)
    for one in problems:
        if not one.FAIL_TO_PASS:
            raise DataError(f"{path}: {one.instance_id} has no FAIL_TO_PASS: run fettle issues validate first")
    known = [one.instance_id for one in problems]
    for id in sorted((replies or {}).keys() - set(known)):
        raise DataError(f"a reply is to {id}, which is no problem of {path}{did_you_mean(id, known)}")
    judge = Judge(Issues(path=str(path), repository=str(repository), validation=settings, credit=PASS_ALONE))
    at_once = asyncio.Semaphore(settings.sandbox.workers or os.cpu_count() or 1)

    async def made(one: Instance) -> IssueTrajectory | None:
        base = tree_of(repository, one.base_commit)
        reply = _solved(one, base) if replies is None else replies.get(one.instance_id)
        if reply is None:
            return None
        async with at_once:
            return await _attempted(one, base, reply, judge)

    return [each for each in await asyncio.gather(*map(made, problems)) if each is not None]


def _solved(problem: Instance, base: Tree) -> str | None:
    """None where the solution cannot be said in edits."""
    try:
        return solution(problem, base)
    except DataError:
        return None


async def _attempted(problem: Instance, base: Tree, reply: str, judge: Judge) -> IssueTrajectory:
    try:
        proposed = edited(base, edits_of(reply), shown=shown(problem))
    except DataError as error:
        resolved, seen = False, f"The change cannot be made: {error.message}"
    else:
        result = await judge.paid(problem, base, proposed, without_edits(reply))
        resolved = bool(result.measured["issue/resolved"])
        seen = "Every hidden test passes." if resolved else "The hidden tests do not all pass."
    steps = [
        Step(action="read the issue", observation=question(problem, base), response=reply),
        Step(action="run the tests", observation=seen, response=""),
    ]
    outcome = Outcome(reward=float(resolved), resolved=resolved, problem=problem.instance_id)
    return attempt(problem, steps, outcome)
