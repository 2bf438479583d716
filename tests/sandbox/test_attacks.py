"""What must not get through does not, and would, were there no walls."""

import asyncio
from pathlib import Path

import pytest

from fettle.sandbox import sandbox
from scripts.sandbox_table import ATTACKS, OPEN, STRICT, THROUGH, attempted, surroundings, works_for


def named(attack):
    return attack.name


@pytest.fixture(scope="module")
def strict():
    made = sandbox(STRICT)
    yield made
    asyncio.run(made.close())


@pytest.fixture(scope="module")
def without_walls():
    made = sandbox(OPEN)
    yield made
    asyncio.run(made.close())


@pytest.mark.parametrize("attack", ATTACKS, ids=named)
async def test_it_is_stopped(attack, strict):
    with surroundings() as told:
        outcome = await attempted(strict, attack, told)
    assert THROUGH not in outcome.stdout
    assert b"NameError" not in outcome.stderr
    assert b"SyntaxError" not in outcome.stderr


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if works_for(attack)], ids=named)
async def test_it_gets_through_where_nothing_stops_it(attack, without_walls):
    with surroundings() as told:
        outcome = await attempted(without_walls, attack, told)
    assert THROUGH in outcome.stdout, outcome.stderr


async def test_what_is_after_a_process_finds_it_alive(strict):
    with surroundings() as told:
        victim = int(next(word.removeprefix("victim=") for word in told if word.startswith("victim=")))
        for attack in ATTACKS:
            if attack.name in ("another's end", "everybody's end", "its parent's end"):
                await attempted(strict, attack, told)
        assert not ended(victim)


async def test_the_sandbox_works_after_every_attack(strict):
    assert (await strict.run("print('still here')")).stdout == b"still here\n"


def ended(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
