"""Errors cross the wire by code and come back as themselves."""

import pytest

from fettle import errors
from fettle.errors import EngineError, FettleError, by_code, nearest

CLASSES = FettleError.__subclasses__()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_code_names_its_class(kind):
    assert by_code(kind.code) is kind


def test_codes_are_unique():
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


def test_an_unknown_code_is_the_engines_fault():
    assert by_code("from the future") is EngineError


def test_the_page_of_errors_lists_every_one():
    for kind in CLASSES:
        assert f"+ {kind.__name__} " in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lr", "learning_rate"), ("gruop_size", "group_size"), ("rollouts", "group_size"), ("xyz", None)],
)
def test_a_word_used_elsewhere_or_misspelt_is_understood(word, meant):
    assert nearest(word, ["lora", "learning_rate", "group_size"]) == meant


def test_a_word_for_something_that_is_not_there_is_only_compared_by_its_letters():
    assert nearest("lr", ["lora", "group_size"]) == "lora"
