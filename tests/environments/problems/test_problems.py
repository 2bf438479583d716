"""Every kind at every difficulty, each problem solved again by sympy from its statement."""

import re
from random import Random

import pytest
import sympy

from fettle.environments.problems import PROBLEMS, Problem
from fettle.rewards.exact import same

LEVELS = [(kind, difficulty) for kind in PROBLEMS for difficulty in range(1, 6)]
X, Y, Z = sympy.symbols("x y z", real=True)
NAMES = {"x": X, "y": Y, "z": Z}


def drawn(kind: str, difficulty: int, count: int = 40) -> list[Problem]:
    return [PROBLEMS[kind](Random(f"{kind}/{difficulty}/{index}"), difficulty) for index in range(count)]


def expression(text: str) -> sympy.Expr:
    return sympy.sympify(text, locals=NAMES, rational=True)


def solved(problem: Problem) -> str:
    """The answer as sympy finds it."""
    if re.search("[<>]", problem.statement):
        parts = re.split(r"\s*(<=|>=|<|>)\s*", problem.statement)
        relations = [
            expression(f"({left}) {sign} ({right})")
            for left, sign, right in zip(parts[::2], parts[1::2], parts[2::2], strict=False)
        ]
        found = sympy.reduce_inequalities(relations, X).as_set()
        opening, closing = "(" if found.left_open else "[", ")" if found.right_open else "]"
        return f"{opening}{found.start}, {found.end}{closing}"
    equations = [sympy.Eq(*map(expression, part.split("="))) for part in problem.statement.split(";")]
    names = sorted(set().union(*(each.free_symbols for each in equations)), key=str)
    (found,) = sympy.solve(equations, names, dict=True)
    return ", ".join(f"{name} = {found[name]}" for name in names)


@pytest.mark.parametrize(("kind", "difficulty"), LEVELS)
def test_a_solver_finds_the_same_answer(kind, difficulty):
    for problem in drawn(kind, difficulty, 12):
        assert same(problem.answer, solved(problem)), problem
        assert same(problem.wrong_answer, solved(problem)) is False or problem.wrong_answer == problem.answer, problem


@pytest.mark.parametrize(("kind", "difficulty"), LEVELS)
def test_the_work_leads_to_its_answer(kind, difficulty):
    for problem in drawn(kind, difficulty):
        for work, answer in ((problem.work, problem.answer), (problem.wrong_work, problem.wrong_answer)):
            assert all(value in work for value in re.findall(r"-?[0-9/]+", answer)), problem


@pytest.mark.parametrize(("kind", "difficulty"), LEVELS)
def test_the_answer_does_not_stand_in_the_question_as_a_whole(kind, difficulty):
    asked = [problem for problem in drawn(kind, difficulty) if problem.question.endswith(problem.answer)]
    assert len(asked) < 4


@pytest.mark.parametrize(("kind", "difficulty"), LEVELS)
def test_no_part_of_a_question_is_paid_for(kind, difficulty):
    """A policy that copies what was asked earns nothing, but for a number that happens to be the answer."""
    for problem in drawn(kind, difficulty):
        whole = problem.question.partition(": ")[2].partition(". ")[0] or problem.question
        assert same(problem.answer, whole) is False, problem


@pytest.mark.parametrize(("kind", "difficulty"), LEVELS)
def test_problems_differ_and_a_seed_draws_the_same_again(kind, difficulty):
    problems = drawn(kind, difficulty)
    assert len({problem.question for problem in problems}) > 30
    assert drawn(kind, difficulty) == problems


@pytest.mark.parametrize("kind", PROBLEMS)
def test_most_mistakes_are_mistakes(kind):
    problems = [problem for difficulty in range(1, 6) for problem in drawn(kind, difficulty)]
    wrong = sum(same(problem.answer, problem.wrong_answer) is False for problem in problems)
    assert wrong > 0.95 * len(problems)
