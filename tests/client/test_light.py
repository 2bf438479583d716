"""A client starts at once, on a machine that has nothing to compute with."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "ray", "matplotlib", "fastapi", "sqlalchemy")


@pytest.mark.parametrize("module", ["fettle.client", "fettle.client.once"])
def test_a_client_loads_nothing_heavy(module):
    code = f"import {module}, sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
