"""Installed functions that are given text nobody vouches for: their answers come out, and nothing else."""

import json

import pytest

from fettle.errors import ScorerError, ScorerTimeout


async def test_an_installed_function_is_called(box):
    assert await box.trusted("json:loads", "[1, 2]") == [1, 2]
    assert await box.trusted("yaml:safe_load", "a: 1") == {"a": 1}  # a package, which programs do not have
    assert await box.trusted("fettle.errors:nearest", "lr", ["learning_rate"]) == "learning_rate"


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("json:loads", ["{"], "JSONDecodeError"),
        ("no_such_package:f", [], "cannot be imported"),
        ("json:nothing", [], "nothing"),
        ("os:_exit", [0], "its process ended"),
        ("builtins:eval", ["__import__('socket').socket()"], "PermissionError"),
        ("builtins:float", ["nan"], "ValueError"),
    ],
)
async def test_a_scorer_that_fails_is_an_error(box, function, arguments, said):
    with pytest.raises(ScorerError, match=said):
        await box.trusted(function, *arguments)
    assert await box.trusted("json:dumps", 1) == "1"


async def test_a_scorer_that_takes_too_long_is_an_error(box):
    with pytest.raises(ScorerTimeout, match=r"0\.5 s"):
        await box.trusted("time:sleep", 60, seconds=0.5)


async def test_a_file_that_a_scorer_is_made_to_read_is_not_there(box, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(json.dumps("secret"))
    with pytest.raises(ScorerError, match="FileNotFoundError"):
        await box.trusted("builtins:eval", f"open({str(secret)!r}).read()")
