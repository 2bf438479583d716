"""A package that ``fettle environments new`` wrote is installed, found, tested, served and trained, all by its name."""

import importlib
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import typed
from tests.environments.adapters.installed import COUNTING, installed

FETTLE = [sys.executable, "-c", "from fettle.cli import main; main()"]
TRAIN = """
type: rl
name: once
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
environments: [{type: plugin, name: my-world, heldout: 4, settings: {numbers: 2}}]
sampling: {max_tokens: 4}
groups_per_step: 1
group_size: 2
steps: 1
evaluation: {tasks: 2, every: 1}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder that was written."""
    folder = tmp_path_factory.mktemp("new") / "my-world"
    made = typed("environments", "new", "my-world", "--folder", folder, into=folder.parent)
    assert made.out.startswith(f"{folder}: pyproject.toml, my_world.py, test_my_world.py\n")
    return folder


@pytest.fixture(scope="module")
def package(world):
    """Where it is installed: a folder of the tests'."""
    target = world.parent / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(world)], check=True, capture_output=True)
    return target


@pytest.fixture
def found(package, monkeypatch):
    """This process finds the package too."""
    monkeypatch.syspath_prepend(package)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_world", None)


def test_its_own_tests_pass(world, package):
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=world,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 passed" in tested.stdout


def test_it_is_listed_tried_and_trained(found, fettle, desk):
    listed = fettle("environments", "list").out
    line = next(line for line in listed.splitlines() if line.startswith("my-world"))
    assert "of my-world" in line
    assert "(numbers)" in line
    tried = fettle("environments", "check", "my-world", "settings.numbers=3", "heldout=5").out
    assert tried.startswith("my-world: 5 held-out tasks; the first: Which is the largest of ")
    (desk / "recipe.yaml").write_text(TRAIN)
    ended = fettle("train", "recipe.yaml")
    assert ended.code == 0, ended.err
    [metrics] = (desk / "runs").glob("*/metrics.jsonl")
    assert "heldout/component/right" in metrics.read_text()


def test_it_is_served_by_name(package, fettle):
    serve = [*FETTLE, "environments", "serve", "my-world", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment)
    address = process.stdout.readline().split()[-1]
    assert fettle("environments", "list", address).out.split()[:2] == ["my-world", "plugin"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_package_that_cannot_be_imported_is_listed_with_its_error(fettle, tmp_path):
    with installed(tmp_path / "packages", "broken_world", "1 / 0", {"broken": "broken_world:suite"}):
        listed = fettle("environments", "list")
    assert listed.code == 0
    assert "cannot be imported (ZeroDivisionError: division by zero)" in listed.out


def test_an_unknown_name_is_told_with_what_was_meant(fettle, tmp_path):
    with installed(tmp_path / "packages", "counting_world", COUNTING, {"counting": "counting_world:suite"}):
        for command in (("environments", "check"), ("environments", "serve")):
            refused = fettle(*command, "countin")
            assert refused.code == 2
            assert "did you mean counting?" in refused.err


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My World", "'My World' is no name for a package"),
        ("arithmetic", "arithmetic is a type of environments already"),
        ("json", "there is a module json already"),
    ],
)
def test_a_name_that_will_not_do_writes_nothing(fettle, tmp_path, name, sentence):
    refused = fettle("environments", "new", name, "--folder", tmp_path / "there")
    assert refused.code == 2
    assert sentence in refused.err
    assert not (tmp_path / "there").exists()


def test_nothing_is_written_over(fettle, tmp_path):
    refused = fettle("environments", "new", "my-world", "--folder", tmp_path)
    assert refused.code == 2
    assert f"{tmp_path} is there already" in refused.err
