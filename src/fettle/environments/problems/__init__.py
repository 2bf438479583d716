"""Problems of school mathematics, drawn by kind and difficulty, each with its worked solution and a likely mistake."""

from fettle.environments.problems.problem import Problem
from fettle.environments.problems.table import PROBLEMS

__all__ = ["PROBLEMS", "Problem"]
