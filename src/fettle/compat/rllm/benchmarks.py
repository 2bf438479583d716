"""Benchmarks of a history's problems: attempts at each, what their tests said, and the data set that they make."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fettle.compat.rllm.attempts import attempts
from fettle.compat.rllm.config import RLLMConfig
from fettle.compat.rllm.material import FOLDER, PROBLEMS
from fettle.compat.rllm.recipe import system_of
from fettle.config import Split, Validation
from fettle.config.arguments import settings_from
from fettle.errors import DataError, NotFoundError
from fettle.issues.examples import Converted, Example, converted
from fettle.issues.examples import written as examples_written
from fettle.issues.instances import Instance, read_instances
from fettle.issues.instances import written as instances_written
from fettle.issues.selection import Selection, parted, selected
from fettle.issues.trajectories import IssueTrajectory, read_trajectories, written
from fettle.tracking import write_atomically

FOLDER_OF_ALL = Path("data/benchmarks")
"""Where benchmarks are, from where a program is started."""
ALL, USUAL = Selection(), Split()


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The files of one benchmark."""

    folder: Path
    id: str

    @property
    def result(self) -> Path:
        """What came of it, in the documented form."""
        return self.folder / f"result_{self.id}.json"

    @property
    def trajectories(self) -> Path:
        """The attempts, in the documented form."""
        return self.folder / f"trajectories_{self.id}.json"

    @property
    def problems(self) -> Path:
        """The problems, with their tests."""
        return self.folder / f"problems_{self.id}.jsonl"

    @property
    def train(self) -> Path:
        """Lines of the data set to train on."""
        return self.folder / f"train_{self.id}.jsonl"

    @property
    def val(self) -> Path:
        """Those held out."""
        return self.folder / f"val_{self.id}.jsonl"


class TrajectoryIntegration:
    """Attempts at problems, made and judged by the tests, and turned into the documented data set."""

    def __init__(self, config: RLLMConfig, *, validation: Validation | None = None) -> None:
        """``validation``: how tests are run."""
        self._config = config
        self._validation = validation or Validation()

    async def generate_trajectories(
        self, problems_path: Path | str, repository: Path | str, replies: Mapping[str, str] | None = None
    ) -> list[IssueTrajectory]:
        """An attempt at each problem: the reply given for its id, or else the solution of its history.

        Each is tested in the sandbox: nothing is made up.

        Raises:
            DataError: the problems cannot be used.
        """
        return await attempts(Path(problems_path), Path(repository), replies, self._validation)

    def convert_trajectories(
        self,
        trajectories: Sequence[IssueTrajectory],
        problems: Sequence[Instance] = (),
        *,
        wanted: Selection = ALL,
        split: Split = USUAL,
    ) -> tuple[Converted, Converted]:
        """Lines to train on and lines held out, of what is wanted; no issue, nor one like it, is on both sides.

        Raises:
            DataError: one side would be without a line.
        """
        kept, dropped = selected(trajectories, wanted)
        if not kept:
            raise DataError(f"none of {len(trajectories)} trajectories is left: {_told(dropped)}")
        system = system_of(self._config)
        training, heldout = (converted(side, system=system) for side in parted(kept, split, problems))
        for name, side in (("train on", training), ("hold out", heldout)):
            if not side.examples:
                raise DataError(
                    f"of {len(trajectories)} trajectories no line is left to {name} ({_told(side.dropped + dropped)}): "
                    "have more of them tested, or split by another random_seed or test_size"
                )
        training.dropped.update(dropped)
        return training, heldout


class BenchmarkIntegration:
    """Benchmarks in a folder: run, and turned into the documented data set."""

    def __init__(
        self, config: RLLMConfig, *, folder: Path | str = FOLDER_OF_ALL, validation: Validation | None = None
    ) -> None:
        """``folder``: where benchmarks are; ``validation``: how tests are run."""
        self._folder = Path(folder)
        self._trajectories = TrajectoryIntegration(config, validation=validation)

    async def run_benchmark(
        self,
        problems_path: Path | str,
        repository: Path | str,
        *,
        benchmark_id: str | None = None,
        replies: Mapping[str, str] | None = None,
    ) -> Path:
        """Attempt each problem, and write down what its tests said: the file of the result.

        ``replies`` are by the problems' ids; without them the solutions of the history are tried, which must pass.

        Raises:
            DataError: the problems cannot be used, or the benchmark is there already.
        """
        begun = time.time()
        there = Benchmark(self._folder, benchmark_id or f"historical_{begun:.0f}")
        if there.result.exists():
            raise DataError(f"{there.result} is there already: give the benchmark another id")
        problems = read_instances(Path(problems_path))
        made = await self._trajectories.generate_trajectories(problems_path, repository, replies)
        _write(there, problems, made, {**_result(there.id, begun, made, len(problems)), **_tested_in(repository)})
        return there.result

    async def convert_existing_benchmark(
        self, benchmark_id: str, *, test_size: float = 0.2, random_seed: int = 42
    ) -> tuple[Path, Path, Path]:
        """The file of the result, and the data set that the attempts make: to train on, and held out.

        Raises:
            NotFoundError: there is no such benchmark.
            ConfigError: ``test_size`` is no share, or ``random_seed`` no seed.
            DataError: its files cannot be used, or one side would be without a line; then none is written.
        """
        given = {"heldout": test_size, "seed": random_seed}
        split = settings_from("convert_existing_benchmark", Split, given, {("heldout",): "test_size"})
        there = Benchmark(self._folder, benchmark_id)
        for path in (there.result, there.trajectories):
            if not path.is_file():
                known = ", ".join(sorted(p.stem.removeprefix("result_") for p in self._folder.glob("result_*.json")))
                raise NotFoundError(f"there is no benchmark {benchmark_id}, for {path} is missing: {known or 'none'}")
        problems = read_instances(there.problems) if there.problems.is_file() else []
        folder = _result_of(there.result).get(FOLDER)
        sides = self._trajectories.convert_trajectories(read_trajectories(there.trajectories), problems, split=split)
        for path, side in zip((there.train, there.val), sides, strict=True):
            write_atomically(path, examples_written([_placed(each, there, folder) for each in side.examples]))
        return there.result, there.train, there.val


def _write(
    there: Benchmark, problems: Sequence[Instance], made: Sequence[IssueTrajectory], result: Mapping[str, Any]
) -> None:
    there.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(there.problems, instances_written(problems))
    write_atomically(there.trajectories, written(made))
    write_atomically(there.result, json.dumps(result, indent=2) + "\n")


def _tested_in(repository: Path | str) -> dict[str, str]:
    return {FOLDER: str(Path(repository).resolve())}


def _placed(example: Example, there: Benchmark, folder: Any) -> Example:
    """The line, with where its problem is tested."""
    if not folder or not example.metadata.problem:
        return example
    about = {**example.metadata.model_dump(), PROBLEMS: str(there.problems.resolve()), FOLDER: folder}
    return Example.model_validate({**example.model_dump(), "metadata": about})


def _result(id: str, begun: float, made: Sequence[IssueTrajectory], total: int) -> dict[str, Any]:
    """The documented fields; an attempt is successful when its tests pass, and at nothing else."""
    solved = sum(each.outcome is not None and each.outcome.resolved for each in made)
    steps = sum(len(each.steps) for each in made) / max(1, len(made))
    return {
        "benchmark_id": id,
        "start_time": datetime.fromtimestamp(begun, UTC).isoformat(),
        "end_time": datetime.now(UTC).isoformat(),
        "total_issues": total,
        "successful_issues": solved,
        "failed_issues": len(made) - solved,
        "skipped_issues": total - len(made),
        "average_steps": steps,
        "metrics": {"success_rate": solved / max(1, len(made)), "average_steps": steps},
        "trajectories": [each.issue_id for each in made],
    }


def _result_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): run the benchmark anew") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no result: run the benchmark anew")
    return found


def _told(dropped: Counter[str]) -> str:
    return "; ".join(f"{count} dropped: {why}" for why, count in dropped.items()) or "the file is empty"
