"""``constraints.txt`` pins whatever the environment needs, to the last dependency."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement


@pytest.fixture
def pins(root) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text().splitlines()
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


def needed(root) -> Iterator[tuple[str, str | None]]:
    """Each package that the project, its extras or its tests lead to, with the version here, if it is here."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    extras = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    waiting = [*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]]
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
