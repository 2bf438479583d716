"""What a change is worth beside its tests: what cheap changes earn, and what the solution does."""

import pytest
from rapidfuzz.distance import Indel

from fettle.issues.scores import location, quality, similarity, size
from fettle.issues.trees import Tree

BASE = """import os


def total(values):
    result = 0
    for value in values:
        result -= value
    return result


def name():
    return "total"
"""
RIGHT = BASE.replace("-= value", "+= value")


def tree(text: str) -> Tree:
    return Tree({"m.py": text.encode(), "other.py": b"x = 1\n"})


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (RIGHT, 1.0, 1.0),
        (BASE, 0.0, 0.0),
        (BASE.replace("    result = 0\n", "    # mended\n    result = 0\n"), 0.0, 0.0),
        (BASE + "\n\n\n", 0.0, 0.0),
        (RIGHT.replace("return result", "return result ("), 0.0, 0.0),
        (BASE.replace("        result -= value\n", "        pass\n"), 0.3, 0.7),
        (BASE.replace('return "total"', 'return "sum"'), 0.0, 0.55),
    ],
)
def test_likeness_is_of_changed_lines_of_programs(text, least, most):
    assert least <= similarity(tree(BASE), tree(text), tree(RIGHT)) <= most


def test_a_comment_in_the_right_place_is_like_no_solution_though_the_patches_are_alike():
    comment = tree(BASE.replace("        result -= value\n", "        # result += value\n        result -= value\n"))
    whole = [tree(BASE).patch_to(other) for other in (comment, tree(RIGHT))]
    assert Indel.normalized_similarity(*whole) > 0.49  # what is paid for it where whole patches are compared
    assert similarity(tree(BASE), comment, tree(RIGHT)) == 0.0


def test_the_solutions_lines_again_and_again_are_less_like_it():
    stuffed = tree(RIGHT.replace("        result += value\n", "        result += value\n" * 10))
    assert similarity(tree(BASE), stuffed, tree(RIGHT)) < 0.7


def test_a_change_of_everything_is_not_where_the_solution_is():
    everywhere = tree(RIGHT.replace('"total"', '"sum"')).with_files({f"n{at}.py": b"x = 1\n" for at in range(9)})
    assert location(tree(BASE), everywhere, tree(RIGHT)) < 0.4


def test_violations_are_not_hidden_by_comments():
    bare = RIGHT.replace("    result = 0\n", "    result = undefined\n")
    assert quality(tree(BASE), tree(bare.replace("undefined\n", "undefined  # noqa\n"))) == quality(
        tree(BASE), tree(bare)
    )


def test_files_that_the_solution_leaves_alone_cost():
    both = tree(RIGHT).with_files({"other.py": b"x = 2\ny = 3\nz = 4\n"})
    assert similarity(tree(BASE), both, tree(RIGHT)) < 0.5
    assert location(tree(BASE), both, tree(RIGHT)) == pytest.approx(2 * 2 / (3 + 2))


def test_where_a_change_is():
    assert location(tree(BASE), tree(RIGHT), tree(RIGHT)) == 1.0
    elsewhere = tree(BASE.replace('return "total"', 'return "sum"'))
    assert location(tree(BASE), elsewhere, tree(RIGHT)) == pytest.approx(0.5)  # the file, and another function


def test_violations_that_a_change_brings_cost():
    assert quality(tree(BASE), tree(RIGHT)) == 1.0
    unused = RIGHT.replace("    result = 0\n", "    result = 0\n    a = b = c = undefined\n")
    assert 0 <= quality(tree(BASE), tree(unused)) < 1.0
    assert quality(tree(BASE), tree("(")) < 1.0


def test_length_beyond_twice_the_solutions_costs():
    assert size(tree(BASE), tree(RIGHT), tree(RIGHT)) == 1.0
    long = tree(RIGHT + "\n".join(f"x{n} = {n}" for n in range(100)) + "\n")
    assert size(tree(BASE), long, tree(RIGHT)) < 0.1
