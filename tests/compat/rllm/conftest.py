"""Four problems of a repository that is made here, whose tests are known without being run, and a tiny model."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from fettle.compat.rllm import RLLMConfig
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model
from fettle.issues.instances import Instance, written
from tests.issues.conftest import History

MISTAKES = {
    "add": ("a - b", "a + b", "The sum of two prices is their difference, and invoices come out negative"),
    "times": ("a + b", "a * b", "An order of three boxes at four each says seven where twelve was expected"),
    "less": ("a > b", "a < b", "Sorting by age puts the eldest first although the page promises the reverse"),
    "both": ("a or b", "a and b", "A door opens as soon as either key is turned and should wait for the second"),
}
CASES = {"add": "add(2, 3) == 5", "times": "times(3, 4) == 12", "less": "less(1, 2)", "both": "not both(1, 0)"}


@dataclass(frozen=True)
class Corpus:
    """Where everything is."""

    repository: Path
    problems: list[Instance]

    def file(self, path: Path, *names: int) -> Path:
        """Some of the problems, in a file."""
        path.write_text(written([self.problems[at] for at in names]))
        return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    history = History(tmp_path_factory.mktemp("rllm") / "shop")
    return Corpus(history.path, [_problem(history, at, name) for at, name in enumerate(MISTAKES, start=1)])


def _problem(history: History, at: int, name: str) -> Instance:
    wrong, right, said = MISTAKES[name]
    source, tests = f"{name}.py", f"tests/test_{name}.py"
    program = f"def {name}(a, b):\n    return {{}}\n"
    checks = f"from {name} import {name}\n\n\ndef test_zero():\n    assert {name}(0, 0) == {name}(0, 0)\n"
    base = history.commit(f"Add {name}", {source: program.format(wrong), tests: checks})
    more = f"{checks}\n\ndef test_it():\n    assert {CASES[name]}\n"
    fix = history.commit(f"Fix {name} (closes #{at})", {source: program.format(right), tests: more})
    patches = [history.git("diff", base, fix, "--", path) + "\n" for path in (source, tests)]
    return Instance(
        instance_id=f"ada__shop-{at}",
        repo="ada/shop",
        base_commit=base,
        patch=patches[0],
        test_patch=patches[1],
        problem_statement=said,
        created_at=f"2026-01-0{at}T09:00:00Z",
        FAIL_TO_PASS=(f"{tests}::test_it",),
        PASS_TO_PASS=(f"{tests}::test_zero",),
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("rllm-model") / "tiny"
    texts = [
        f'{said} <file path="{name}.py"> def {name}(a, b):\n    return {wrong} return {right} </file> <edit path='
        for name, (wrong, right, said) in MISTAKES.items()
    ]
    settings = TinyModel(hidden=16, layers=1, heads=1, context=512, vocabulary=600)
    return make_tiny_model(settings, folder, texts=texts * 5)


@pytest.fixture
def settings(model, tmp_path) -> RLLMConfig:
    """The documented ones, for that model, with nobody told."""
    return RLLMConfig.model_validate(
        {
            "model": {"model_id": model, "max_seq_length": 512, "output_dir": str(tmp_path / "out")},
            "training": {"report_to": []},
        }
    )
