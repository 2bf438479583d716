"""What must start at once loads nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "ray", "peft", "matplotlib", "reasoning_gym")
LIGHT = (
    "fettle",
    "fettle.errors",
    "fettle.types",
    "fettle.config",
    "fettle.rewards",
    "fettle.environments",
    "fettle.data",
)


@pytest.mark.parametrize("module", [*LIGHT, "fettle.cli"])
def test_importing_it_loads_nothing_heavy(module):
    assert loaded_by(f"import {module}") == set()


def test_help_loads_nothing_heavy():
    assert (
        loaded_by(
            "from typer.testing import CliRunner\nimport fettle.cli\nCliRunner().invoke(fettle.cli.app, '--help')"
        )
        == set()
    )


def test_a_heavy_import_is_seen():
    assert "matplotlib" in loaded_by("import matplotlib")


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after ``code``."""
    report = f"\nimport sys; print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].removeprefix("loaded:").split())
