"""Tasks that are solved with tools. Every answer is computed from what the question was made of."""

from collections.abc import Callable
from random import Random

from fettle.config import Calculations, FileTasks, Lookups
from fettle.environments.generated import prompt
from fettle.environments.tools.corpus import Corpus, Document
from fettle.randomness import key
from fettle.types import Task

NAME = "tools"
Draw = Callable[[Random], Task]

SYLLABLES = ("bel", "cor", "dan", "fen", "gal", "har", "kel", "lor", "mar", "nor", "pel", "ros", "sil", "tor", "vel")
YEARS, PEOPLE, HEIGHTS = (900, 1950), (200, 90000), (2, 2900)
ASKED = {
    "year": "In which year was {name} founded?",
    "people": "How many people live in {name}?",
    "height": "How many metres above the sea does {name} lie?",
}
COMPARED = {
    "year": "How many years lie between the founding of {name} and that of {other}?",
    "people": "How many people live in {name} and {other} together?",
    "height": "By how many metres do the heights of {name} and {other} differ?",
}


def calculations(settings: Calculations, system: str | None) -> Draw:
    """Expressions of long numbers; the answer is their value as whole numbers."""
    low, high = (0 if settings.digits == 1 else 10 ** (settings.digits - 1)), 10**settings.digits - 1

    def draw(rng: Random) -> Task:
        numbers = [rng.randint(low, high) for _ in range(settings.terms)]
        signs = [rng.choice(settings.operations) for _ in numbers[1:]]
        expression = str(numbers[0]) + "".join(
            f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True)
        )
        answer = str(_sum_of_products(numbers, signs))
        return Task(prompt(system, f"What is {expression} ="), {"answer": answer, "expression": expression}, NAME)

    return draw


def _sum_of_products(numbers: list[int], signs: list[str]) -> int:
    """A product binds before a sum. Written apart from the calculator, so that the two check each other."""
    total, product = 0, numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign == "*":
            product *= number
        else:
            total, product = total + product, number if sign == "+" else -number
    return total + product


class Gazetteer:
    """Made-up places: a document for each, and the facts that it tells."""

    def __init__(self, size: int, seed: int) -> None:
        rng = Random(key(seed, "gazetteer"))
        names: dict[str, None] = {}
        while len(names) < size:
            names["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4))).capitalize()] = None
        self.facts = {
            name: {"year": rng.randint(*YEARS), "people": rng.randint(*PEOPLE), "height": rng.randint(*HEIGHTS)}
            for name in names
        }
        self.corpus = Corpus(
            Document(
                name,
                f"{name} was founded in {facts['year']}. {facts['people']} people live there. "
                f"It lies {facts['height']} metres above the sea.",
            )
            for name, facts in self.facts.items()
        )


def lookups(settings: Lookups, places: Gazetteer, system: str | None) -> Draw:
    """Questions about one place, or about two of them."""
    names = list(places.facts)

    def draw(rng: Random) -> Task:
        fact = rng.choice(list(ASKED))
        name, other = rng.sample(names, 2)
        first, second = places.facts[name][fact], places.facts[other][fact]
        if settings.hops == 1:
            question, answer = ASKED[fact].format(name=name), first
        else:
            question = COMPARED[fact].format(name=name, other=other)
            answer = first + second if fact == "people" else abs(first - second)
        return Task(prompt(system, question), {"answer": str(answer)}, NAME)

    return draw


def file_tasks(settings: FileTasks, system: str | None) -> Draw:
    """Files of numbers, of which something is asked; half of the time the answer must be written down too."""
    low, high = 10 ** (settings.digits - 1), 10**settings.digits - 1

    def draw(rng: Random) -> Task:
        files = {
            f"{letter}.txt": [rng.randint(low, high) for _ in range(settings.lines)]
            for letter in "abcdefghi"[: settings.files]
        }
        asked = sorted(rng.sample(sorted(files), rng.randint(1, len(files))))
        numbers = [number for name in asked for number in files[name]]
        what, answer = rng.choice(
            [
                ("the sum of the numbers", sum(numbers)),
                ("the largest number", max(numbers)),
                ("how many numbers are even", sum(number % 2 == 0 for number in numbers)),
            ]
        )
        texts = {name: "\n".join(map(str, held)) + "\n" for name, held in files.items()}
        data: dict[str, object] = {"answer": str(answer), "files": texts}
        question = f"Find out {what} in {', '.join(asked)}."
        if rng.random() < 0.5:
            data["written"] = {"result.txt": str(answer)}
            question += " Write it into result.txt as well."
        return Task(prompt(system, question), data, NAME)

    return draw
