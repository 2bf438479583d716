"""What the environment needs is pinned to the last dependency, and so is what KServe needs apart."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HELD_BACK = {"pandas", "psutil", "tabulate"}
"""What KServe's SDK needs older than everybody else has it."""


@pytest.fixture
def pins(root) -> dict[str, str]:
    return pins_in(root / "constraints.txt")


def pins_in(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    pinned = (line.partition("==") for line in lines if not line.startswith("#"))
    return {canonical(name): version for name, _, version in pinned}


def test_every_package_is_pinned_at_the_version_that_is_tested(root, pins):
    unlike = {
        name: f"installed {version}, pinned {pins.get(name, 'nowhere')}"
        for name, version in needed(root)
        if name not in pins or version not in (None, pins[name])
    }
    assert unlike == {}


def test_the_build_and_the_installer_are_pinned(pins):
    assert {"pip", "hatchling", "editables", "setuptools"} <= pins.keys()


def test_no_pin_names_a_build_that_others_cannot_get(pins):
    assert [version for version in pins.values() if "+" in version] == []


def test_what_deploys_is_pinned_as_everything_else_but_where_kserve_holds_it_back(root, pins):
    apart = pins_in(root / "constraints-deploy.txt")
    assert {name for name in apart.keys() & pins.keys() if apart[name] != pins[name]} == HELD_BACK
    assert {name for name, _ in needed(root, {"server"})} <= apart.keys()
    assert {"kserve", "kubernetes"} <= apart.keys()


def needed(root, asked: Iterable[str] | None = None) -> Iterator[tuple[str, str | None]]:
    """Each package that the project, its extras or its tests lead to, with the version here, if it is here.

    Of the extras those that are asked for, and no tests; by default all but the one that stands apart.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    chosen = extras.keys() - {"deploy"} if asked is None else asked
    tests = project["dependency-groups"]["dev"] if asked is None else []
    waiting = [*project["project"]["dependencies"], *(line for name in chosen for line in extras[name]), *tests]
    seen: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonical(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        try:
            here = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            yield name, None
            continue
        yield name, here.version.partition("+")[0]
        waiting += [line for line in here.requires or () if applies(line, requirement.extras)]


def applies(line: str, extras: Iterable[str]) -> bool:
    marker = Requirement(line).marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
