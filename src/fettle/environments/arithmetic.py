"""Sums and differences, generated here: what reasoning-gym's ``chain_sum`` asks, with nothing to install."""

from random import Random

from fettle.config import Arithmetic
from fettle.environments.base import Suite
from fettle.environments.generated import GeneratedSuite, prompt
from fettle.rewards import in_tags, number
from fettle.types import Task

NAME = "arithmetic"


def suite(config: Arithmetic) -> Suite:
    """Sums whose answer, in its tags, earns 1."""

    def draw(rng: Random) -> Task:
        expression, answer = drawn_sum(rng, terms=(config.min_terms, config.max_terms), digits=config.digits)
        question = f"State the final answer to the following arithmetic problem: {expression} ="
        return Task(prompt(config.system, question), {"answer": str(answer), "expression": expression}, NAME)

    return GeneratedSuite(NAME, draw, in_tags(number), component="number", seed=config.seed, heldout=config.heldout)


def drawn_sum(rng: Random, *, terms: tuple[int, int], digits: int) -> tuple[str, int]:
    """An expression like ``12 + 34 - 50``, and its value. Numbers have exactly ``digits`` digits."""
    low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
    value = rng.randint(low, high)
    expression = str(value)
    for _ in range(rng.randint(*terms) - 1):
        term, sign = rng.randint(low, high), rng.choice("+-")
        expression += f" {sign} {term}"
        value += term if sign == "+" else -term
    return expression, value
