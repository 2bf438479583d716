"""Public means in ``__all__``, there, and described."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "src" / "fettle"


def init(package: str) -> Path:
    return PACKAGE.parent / package.replace(".", "/") / "__init__.py"


APART = ("fettle.deploy.kserve.", "fettle.cli.predicting")
"""What needs packages that are not in this environment; its own tests import it."""


def named(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(name for name in map(named, PACKAGE.rglob("*.py")) if not name.startswith(APART))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there_and_described(module):
    found = importlib.import_module(module)
    for name in getattr(found, "__all__", ()):
        item = getattr(found, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert described(item), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_is_inside(module):
    assert inspect.getdoc(importlib.import_module(module))


@pytest.mark.parametrize("package", [module for module in MODULES if init(module).is_file()])
def test_what_a_package_hands_on_is_public(package):
    tree = ast.parse(init(package).read_text(encoding="utf-8"))
    handed_on = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert handed_on <= set(getattr(importlib.import_module(package), "__all__", ()))


def described(item: object) -> bool:
    """A docstring of its own: not a parent's, and not the signature that a dataclass writes for itself."""
    text = item.__doc__ or ""
    return bool(text.strip()) and not text.startswith(f"{item.__name__}(")
