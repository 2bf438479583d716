import pytest

from fettle.config import load
from fettle.errors import ConfigError

SMALL = "type: rl\npolicy: {model: m}\nenvironments: [{type: arithmetic}]\n"
"""The shortest recipe: three lines, so that what a test adds starts on the fourth."""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe; gives its path."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return "recipe.yaml"

    return write


@pytest.fixture
def small(recipe):
    """The shortest recipe with more lines after it; gives its path."""
    return lambda *lines: recipe(SMALL + "\n".join(lines))


@pytest.fixture
def problems():
    """The lines of what is wrong with a recipe."""

    def refused(path, *overrides):
        with pytest.raises(ConfigError) as error:
            load(path, overrides)
        return error.value.message.splitlines()

    return refused
