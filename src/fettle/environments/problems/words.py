"""Word problems: a short story, a question, and the formula that answers it."""

from collections.abc import Callable
from fractions import Fraction
from random import Random

from fettle.environments.problems.problem import Problem, off, written

PEOPLE = ("Mia", "Ben", "Ada", "Omar", "Lena", "Kofi", "Yuki", "Tom", "Priya", "Leo")
THINGS = ("apples", "pencils", "marbles", "stickers", "books", "coins", "shells", "stamps")

Story = tuple[str, str, list[str], Fraction]
"""A question, its formula, the steps (the last lacks its value), and that value."""


def word_problems(rng: Random, difficulty: int) -> Problem:
    """1: one step; 2: two steps; 3: rates; 4: shares and percent; 5: an unknown has to be set up."""
    question, expression, lines, value = rng.choice(STORIES[difficulty - 1])(rng)
    wrong = off(rng, value)
    return Problem(
        question,
        expression if "=" in expression else f"{expression} = x",
        written(value),
        "\n".join([*lines[:-1], f"{lines[-1]} = {written(value)}"]),
        written(wrong),
        "\n".join([*lines[:-1], f"{lines[-1]} = {written(wrong)}"]),
    )


def _gets(rng: Random) -> Story:
    (who, other), thing = rng.sample(PEOPLE, 2), rng.choice(THINGS)
    a, b = rng.randint(5, 60), rng.randint(5, 60)
    question = f"{who} has {a} {thing}. {other} gives {who} {b} more. How many {thing} does {who} have now?"
    return question, f"{a} + {b}", [f"{a} + {b}"], Fraction(a + b)


def _gives(rng: Random) -> Story:
    (who, other), thing = rng.sample(PEOPLE, 2), rng.choice(THINGS)
    b = rng.randint(5, 40)
    a = b + rng.randint(3, 50)
    question = f"{who} has {a} {thing} and gives {b} of them to {other}. How many {thing} are left?"
    return question, f"{a} - {b}", [f"{a} - {b}"], Fraction(a - b)


def _boxes(rng: Random) -> Story:
    who, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    a, b, c = rng.randint(3, 12), rng.randint(4, 15), rng.randint(2, 20)
    question = f"{who} buys {a} boxes with {b} {thing} each and finds {c} more. How many {thing} are that together?"
    return question, f"{a}*{b} + {c}", [f"{a} * {b} = {a * b}", f"{a * b} + {c}"], Fraction(a * b + c)


def _change(rng: Random) -> Story:
    who, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    paid = a * b + rng.randint(1, 40)
    question = f"{who} buys {a} {thing} for {b} dollars each and pays with {paid} dollars. How many dollars come back?"
    return question, f"{paid} - {a}*{b}", [f"{a} * {b} = {a * b}", f"{paid} - {a * b}"], Fraction(paid - a * b)


def _journey(rng: Random) -> Story:
    a, b, c, d = rng.randint(30, 90), rng.randint(2, 5), rng.randint(30, 90), rng.randint(2, 5)
    question = (
        f"A train travels for {b} hours at {a} km/h and then for {d} hours at {c} km/h. How many kilometers are that?"
    )
    lines = [f"{a} * {b} = {a * b}", f"{c} * {d} = {c * d}", f"{a * b} + {c * d}"]
    return question, f"{a}*{b} + {c}*{d}", lines, Fraction(a * b + c * d)


def _workers(rng: Random) -> Story:
    people, days, more = rng.randint(2, 9), rng.randint(3, 12), rng.randint(2, 9)
    each = rng.randint(2, 12)
    made = people * days * each
    question = (
        f"{people} machines make {made} parts in {days} days. How many parts does one machine make in {more} days?"
    )
    lines = [
        f"{made} / {people} = {days * each}",
        f"{days * each} / {days} = {each}",
        f"{each} * {more}",
    ]
    return question, f"{made}/{people}/{days}*{more}", lines, Fraction(each * more)


def _discount(rng: Random) -> Story:
    price, share = 20 * rng.randint(1, 20), 5 * rng.randint(1, 15)
    off_price = Fraction(price * share, 100)
    question = f"A jacket costs {price} dollars and is sold at {share}% off. How many dollars does it cost then?"
    lines = [f"{price} * {share} / 100 = {written(off_price)}", f"{price} - {written(off_price)}"]
    return question, f"{price} - {price}*{share}/100", lines, price - off_price


def _shares(rng: Random) -> Story:
    who, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    below = rng.randint(3, 8)
    above, total = rng.randint(1, below - 1), below * rng.randint(4, 20)
    given = total * above // below
    question = f"{who} has {total} {thing} and gives away {above}/{below} of them. How many {thing} are left?"
    lines = [f"{total} * {above} / {below} = {given}", f"{total} - {given}"]
    return question, f"{total} - {total}*{above}/{below}", lines, Fraction(total - given)


def _ages(rng: Random) -> Story:
    who, other = rng.sample(PEOPLE, 2)
    times, years, age = rng.randint(2, 5), rng.randint(2, 10), rng.randint(4, 20)
    total = (times + 1) * age + 2 * years
    question = (
        f"{who} is {times} times as old as {other}. In {years} years their ages will sum to {total}."
        f" How old is {other} now?"
    )
    lines = [
        f"{times + 1}x + {2 * years} = {total}",
        f"{times + 1}x = {total - 2 * years}",
        f"x = {total - 2 * years} / {times + 1}",
    ]
    return question, f"{times}*x + {years} + x + {years} = {total}", lines, Fraction(age)


def _tickets(rng: Random) -> Story:
    dear, cheap = rng.randint(8, 15), rng.randint(2, 7)
    many, few = rng.randint(5, 40), rng.randint(5, 40)
    count, paid = many + few, dear * many + cheap * few
    question = (
        f"Tickets cost {dear} dollars for adults and {cheap} dollars for children. {count} tickets were sold for"
        f" {paid} dollars. How many of them were for adults?"
    )
    lines = [
        f"{dear}x + {cheap}({count} - x) = {paid}",
        f"{dear - cheap}x = {paid - cheap * count}",
        f"x = {paid - cheap * count} / {dear - cheap}",
    ]
    return question, f"{dear}*x + {cheap}*({count} - x) = {paid}", lines, Fraction(many)


STORIES: tuple[tuple[Callable[[Random], Story], ...], ...] = (
    (_gets, _gives),
    (_boxes, _change),
    (_journey, _workers),
    (_discount, _shares),
    (_ages, _tickets),
)
"""Stories by difficulty."""
