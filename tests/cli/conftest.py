"""The command line, run for real: in this process where it can be, and as a process where that is the point."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from fettle.cli import main

REWARD = '''
"""Rewards of one's own, beside the recipe."""

import itertools
import time
from pathlib import Path

calls = itertools.count(1)


def letters(reply, task):
    return sum(map(str.isalpha, reply)) / max(1, len(reply))


def gated(reply, task):
    """Waits at its 80th call, which is in the third step, until there is a file named go."""
    if next(calls) == 80:
        Path("waiting").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    return letters(reply, task)


def broken(reply, task):
    raise KeyError("no such column")


def fickle(reply, task):
    if next(calls) % 5 == 0:
        raise KeyError("no such column")
    return letters(reply, task)


def not_a_number(reply, task):
    return float("nan")
'''

RECIPE = """\
type: rl
name: tiny
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
environments:
  - {type: jsonl, path: questions.jsonl, reward: "beside:letters", answer_in: text, system: null, heldout: 6}
steps: 8
groups_per_step: 8
group_size: 4
sampling: {max_tokens: 8}
loss: {kl: null}
optimizer: {learning_rate: 4e-2}
evaluation: {every: 4, tasks: 6}
checkpoints: {every: 4}
"""

PIPELINE = """\
type: pipeline
name: two-stages
stages:
  - type: sft
    name: warm-up
    policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
    engine: {threads: 1}
    data: {type: worked_sums, tasks: &sums {type: arithmetic, digits: 1, heldout: 6, system: null}, size: 40}
    steps: 3
    batch_size: 4
    optimizer: {learning_rate: 1e-3}
  - type: rl
    name: grpo
    policy: {model: previous}
    engine: {threads: 1}
    environments: [*sums]
    steps: 2
    groups_per_step: 2
    group_size: 3
    sampling: {max_tokens: 6}
    evaluation: {every: 2, tasks: 6}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What it said of its failure: one line on standard error, after whatever it reported on the way."""
        said = [line for line in self.err.splitlines() if line.startswith("fettle: ")]
        assert "Traceback" not in self.err
        assert len(said) == 1, self.err
        assert self.err.endswith(said[0] + "\n")
        return said[0].removeprefix("fettle: ")


def typed(*arguments: object, into: Path) -> Ended:
    """What comes of typing ``fettle`` and the arguments in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(into)
        patch.setattr(sys, "argv", ["fettle", *map(str, arguments)])
        patch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as end:
            main()
    return Ended(int(end.value.code or 0), out.getvalue(), err.getvalue())


def furnished(folder: Path) -> Path:
    """The folder with a recipe, its questions, its reward, and a recipe of two stages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "beside.py").write_text(REWARD)
    rows = (f'{{"prompt": "What is {n} and {n + 1}?", "answer": "{2 * n + 1}"}}\n' for n in range(12))
    (folder / "questions.jsonl").write_text("".join(rows))
    return folder


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder to work in."""
    return furnished(tmp_path / "desk")


@pytest.fixture
def fettle(desk: Path) -> Callable[..., Ended]:
    """Types a command at the desk."""
    return lambda *arguments: typed(*arguments, into=desk)


@dataclass(frozen=True)
class Done:
    """A run that is over, and how it ended. To be read, never written."""

    desk: Path
    folder: Path
    ended: Ended


def trained(recipe: str, desk: Path, *overrides: str) -> Done:
    """Train there, in a run folder that must be the only one."""
    ended = typed("train", recipe, *overrides, into=desk)
    assert ended.code == 0, ended.err
    [folder] = (desk / "runs").iterdir()
    return Done(desk, folder, ended)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A finished run of the tiny recipe."""
    return trained("tiny.yaml", furnished(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A finished run of two stages."""
    return trained("pipeline.yaml", furnished(tmp_path_factory.mktemp("pipeline")))
