import subprocess
import sys

import pytest

from fettle.config import ReasoningGym
from fettle.environments import suite
from fettle.errors import ConfigError


def test_the_room_is_light():
    program = "import sys, fettle.environments; print({'torch', 'transformers', 'reasoning_gym'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"set()\n"


def test_a_package_that_is_not_installed_is_an_error_with_the_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "fettle.environments.reasoning_gym", raising=False)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ConfigError, match=r"need the package reasoning_gym.*: pip install 'fettle\[gym\]'"):
        suite(ReasoningGym())
