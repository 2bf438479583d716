"""The kinds of problems there are."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from fettle.environments.problems.arithmetic import arithmetic
from fettle.environments.problems.inequalities import inequalities
from fettle.environments.problems.linear import linear_equations
from fettle.environments.problems.problem import Problem
from fettle.environments.problems.systems import systems
from fettle.environments.problems.words import word_problems

PROBLEMS: Mapping[str, Callable[[Random, int], Problem]] = MappingProxyType(
    {
        "arithmetic": arithmetic,
        "linear_equations": linear_equations,
        "systems": systems,
        "inequalities": inequalities,
        "word_problems": word_problems,
    }
)
"""For each kind, what draws a problem of a difficulty from 1 to 5."""
