"""A corpus made here: its mistakes are mistakes, its history is found whole, and its tests tell."""

import ast
import asyncio
from random import Random
from typing import Any

import pytest

from fettle.config.issues import Corpus, Mining, Validation
from fettle.errors import DataError
from fettle.issues.corpus import Flaw, flaws, write_corpus
from fettle.issues.exports import read_export
from fettle.issues.git import Repository
from fettle.issues.mining import mine
from fettle.issues.mutations import mutations
from fettle.issues.specimens import FAMILIES, Specimen, most_specimens, specimens
from fettle.issues.splits import clusters
from fettle.issues.validation import validated
from fettle.sandbox import sandbox
from tests.issues.conftest import RIGHT

CORPUS = Corpus(problems=22)
SAME = {"clamp", "tax", "delay"}
"""Families with a word whose neighbour comes to the same: ``if x < 4: return 4`` and ``if x <= 4: return 4``."""


@pytest.fixture(scope="module")
def found() -> list[Flaw]:
    """A mistake in a function of each family, and in two more."""
    return asyncio.run(flaws(sandbox(), CORPUS))


def function(specimen: Specimen, source: str) -> Any:
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope[specimen.name]


def test_a_mistake_is_one_word_of_the_body_and_still_a_program():
    changed = list(mutations(RIGHT))
    assert {(one.line, one.was, one.becomes) for one in changed} == {
        (2, "+", "-"),
        (6, "*", "+"),
        (6, "2", "3"),
        (6, "2", "1"),
    }
    for one in changed:
        ast.parse(one.source)


def test_examples_tell_every_mistake_but_the_one_that_makes_no_difference():
    for specimen in specimens(Random(0), len(FAMILIES)):
        assert len(specimen.examples) < 30
        right = _answers(specimen, specimen.source)
        untold = [one for one in mutations(specimen.source) if _answers(specimen, one.source) == right]
        family = specimen.name.partition("_of_")[0]
        assert len(untold) <= (4 if family in SAME else 0), (specimen.source, untold)


def _answers(specimen: Specimen, source: str) -> list[str]:
    """For each example what a reporter would say of it."""
    program = function(specimen, source)
    found = []
    for each in specimen.examples:
        try:
            found.append(f"gives `{program(*each)!r}`")
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            found.append(f"raises {type(error).__name__}")
    return found


def test_no_two_specimens_are_the_same_and_there_are_no_more_than_are_said():
    made = list(specimens(Random(1), most_specimens()))
    programs = {
        specimen.source.partition(":\n")[2].replace(specimen.name.partition("_of_")[2], "x") for specimen in made
    }
    assert len(programs) == len(made) == most_specimens()


def test_a_flaw_changes_what_it_says_and_leaves_the_rest(found):
    assert {flaw.specimen.name.partition("_of_")[0] for flaw in found} == set(FAMILIES)
    for flaw in found:
        wrong, right = (_answers(flaw.specimen, s) for s in (flaw.mutation.source, flaw.specimen.source))
        for arguments, was, becomes in zip(flaw.specimen.examples, right, wrong, strict=True):
            [example] = [one for one in (*flaw.right, *flaw.wrong) if one.arguments == arguments]
            assert f"gives `{example.value!r}`" == was
            assert example.said == becomes
            assert (example in flaw.right) == (was == becomes)


async def test_every_problem_of_a_corpus_is_found_and_told_by_its_tests(found, tmp_path):
    folder = tmp_path / "corpus"
    write_corpus(folder, CORPUS, found[:4])
    mined = mine(Repository(folder / "repository"), read_export(folder / "issues.json"), Mining())
    assert sorted(one.number for one in mined.instances) == list("1234")
    assert not any(one.synthetic for one in mined.instances)
    settings = Validation(seconds=30)
    kept = await validated(mined.instances, folder / "repository", sandbox(settings.sandbox), settings)
    assert len(kept.instances) == 4, kept.reasons
    assert all(one.FAIL_TO_PASS and one.PASS_TO_PASS for one in kept.instances)


def test_the_same_seed_is_the_same_corpus_and_no_two_of_its_problems_are_alike(found, tmp_path):
    other = asyncio.run(flaws(sandbox(), Corpus(problems=2, seed=1)))
    assert [flaw.specimen for flaw in asyncio.run(flaws(sandbox(), Corpus(problems=2)))] != [f.specimen for f in other]
    assert asyncio.run(flaws(sandbox(), Corpus(problems=2))) == found[:2]
    heads = []
    for name in "ab":
        write_corpus(tmp_path / name, CORPUS, found)
        heads.append(Repository(tmp_path / name / "repository").hash("HEAD"))
    assert heads[0] == heads[1]
    folder = tmp_path / "a"
    mined = mine(Repository(folder / "repository"), read_export(folder / "issues.json"), Mining()).instances
    assert len(clusters(mined, likeness=0.8)) == len(found)


def test_more_than_there_are_is_refused(found, tmp_path):
    with pytest.raises(DataError, match="100000 problems were asked for, and 24500 can be made: ask for fewer"):
        asyncio.run(flaws(sandbox(), Corpus(problems=100_000)))
    with pytest.raises(DataError, match="is there already"):
        write_corpus(tmp_path, CORPUS, found)
