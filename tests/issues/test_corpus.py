"""A corpus made here: its mistakes are mistakes, its history is found whole, and its tests tell."""

import ast
import asyncio

import pytest

from fettle.config.issues import Corpus, Mining, Validation
from fettle.errors import DataError
from fettle.issues.corpus import Flaw, flaws, write_corpus
from fettle.issues.exports import read_export
from fettle.issues.git import Repository
from fettle.issues.mining import mine
from fettle.issues.mutations import mutations
from fettle.issues.specimens import SPECIMENS, clamp, grade
from fettle.issues.validation import validated
from fettle.sandbox import sandbox
from tests.issues.conftest import RIGHT


@pytest.fixture(scope="module")
def found() -> list[Flaw]:
    """Mistakes of two functions."""
    found = asyncio.run(flaws(sandbox(), {function: SPECIMENS[function] for function in (clamp, grade)}))
    assert len(found) > 10
    return found


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


def test_specimens_have_examples_that_differ():
    for function, examples in SPECIMENS.items():
        assert len({repr(function(*arguments)) for arguments in examples}) > 1, function.__name__


def test_a_flaw_changes_what_it_says_and_leaves_the_rest(found):
    for flaw in found:
        scope: dict[str, object] = {}
        exec(flaw.mutation.source, scope)
        wrong = scope[flaw.function.__name__]
        for example, said in zip(flaw.wrong, flaw.said, strict=True):
            assert said == f"gives `{wrong(*example)!r}`"
            assert wrong(*example) != flaw.function(*example)
        assert all(wrong(*example) == flaw.function(*example) for example in flaw.right)


async def test_every_problem_of_a_corpus_is_found_and_told_by_its_tests(found, tmp_path):
    folder = tmp_path / "corpus"
    write_corpus(folder, Corpus(problems=6), found)
    mined = mine(Repository(folder / "repository"), read_export(folder / "issues.json"), Mining())
    assert sorted(one.number for one in mined.instances) == list("123456")
    assert not any(one.synthetic for one in mined.instances)
    settings = Validation(seconds=30)
    kept = await validated(mined.instances, folder / "repository", sandbox(settings.sandbox), settings)
    assert len(kept.instances) == 6, kept.reasons
    assert all(one.FAIL_TO_PASS and one.PASS_TO_PASS for one in kept.instances)


def test_the_same_seed_is_the_same_corpus(found, tmp_path):
    heads = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_corpus(tmp_path / name, Corpus(problems=5, seed=seed), found)
        heads.append(Repository(tmp_path / name / "repository").hash("HEAD"))
    assert heads[0] == heads[1] != heads[2]


def test_more_than_there_are_is_refused(found, tmp_path):
    with pytest.raises(DataError, match="problems were asked for, and"):
        write_corpus(tmp_path / "corpus", Corpus(problems=100_000), found)
    with pytest.raises(DataError, match="is there already"):
        write_corpus(tmp_path, Corpus(), found)
