import ast
import inspect
import math
import re
import subprocess
import sys

import pytest
from reasoning_gym.factory import DATASETS

from fettle.config import ReasoningGym, SandboxSettings
from fettle.environments import suite
from fettle.environments.reasoning_gym import (
    BUSY,
    EXECUTED,
    HASH_ORDERED,
    NO_NUMBER,
    REFUSED,
    _task,
    scored,
    scored_inside,
)
from fettle.errors import ConfigError, EnvironmentFault
from fettle.rewards import in_tags
from fettle.types import Message, Task

PATIENT = SandboxSettings(seconds=60, memory_mib=1024)
"""For answers that are right, however much else this machine has to do."""
SUMS = {"max_terms": 3, "max_digits": 2}


async def paid(made, task, answer: str) -> float:
    environment = made.environment()
    await environment.reset(task)
    return (await environment.step(Message("assistant", f"<answer>{answer}</answer>"))).reward


def task(answer: str | None) -> Task:
    return Task((Message("user", "?"),), {"answer": answer, "question": "?", "metadata": {}}, "brittle")


class Scorer:
    """Stands in for a dataset of the package: pays by a table, and raises what it finds there."""

    def __init__(self, **pays: float | Exception) -> None:
        self.pays = pays

    def score_answer(self, answer: str, entry: dict[str, object]) -> float:
        paid = self.pays[answer or "nothing"]
        if isinstance(paid, Exception):
            raise paid
        return paid


def test_chain_sum_tells_its_expression():
    task = suite(ReasoningGym(settings=SUMS, heldout=5)).training_task(0)
    assert task.prompt[-1].content.endswith(f": {task.data['expression']} =")


def test_settings_are_passed_through():
    made = suite(ReasoningGym(settings={"min_terms": 5, "max_terms": 5}, heldout=5))
    assert all(len(task.data["expression"].split()) == 9 for task in made.heldout_tasks())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("products", {}),
        ("spell_backward", {}),
        ("word_sorting", {}),
        ("letter_jumble", {}),
        ("mini_sudoku", {}),
        ("calendar_arithmetic", {}),
        ("polynomial_equations", {}),
        ("gsm_symbolic", {}),
        ("acre", {}),
        ("tower_of_hanoi", {"max_disks": 4}),
        ("prime_factorization", {}),
        ("number_sorting", {}),
    ],
)
async def test_other_datasets_pay_for_their_own_answer_and_not_for_garbage(name, settings):
    made = suite(ReasoningGym(task=name, settings=settings, heldout=3))
    for task in (*made.heldout_tasks(), made.training_task(0)):
        assert await paid(made, task, task.data["answer"]) == 1.0
        assert await paid(made, task, "no idea") == 0.0


async def test_partial_credit_is_paid_only_where_it_is_asked_for():
    config = ReasoningGym(task="spell_backward", settings={"min_word_len": 5}, heldout=3)
    task = suite(config).training_task(0)
    nearly = task.data["answer"][:-1] + "?"
    assert await paid(suite(config), task, nearly) == 0.0
    assert 0 < await paid(suite(config.model_copy(update={"partial_credit": True})), task, nearly) < 1


async def test_listing_digits_earns_nothing_unless_partial_credit_is_paid():
    config = ReasoningGym(settings={"max_terms": 2, "max_digits": 1}, heldout=3)
    made, generous = suite(config), suite(config.model_copy(update={"partial_credit": True}))
    tasks = [made.training_task(index) for index in range(20)]
    digits = "-9-8-7-6-5-4-3-2-1 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"
    assert {await paid(made, task, digits) for task in tasks} == {0.0}
    assert all([await paid(generous, task, digits) > 0 for task in tasks])


@pytest.mark.parametrize("name", ["prime_factorization", "boxnet"])
async def test_an_answer_that_crashes_a_sound_scorer_is_a_wrong_answer(name):
    made = suite(ReasoningGym(task=name, heldout=3))
    task = made.training_task(0)
    with pytest.raises((ValueError, TypeError)):
        scored_directly(name, "null", task)
    assert await paid(made, task, "null") == 0.0


def scored_directly(name: str, answer: str, task: Task) -> float:
    from reasoning_gym.factory import create_dataset  # noqa: PLC0415 - the crash itself is what is looked at

    return create_dataset(name, seed=0, size=1).score_answer(answer, dict(task.data))


def test_a_scorer_that_also_crashes_on_the_right_answer_is_a_fault():
    reward = scored(Scorer(x=TypeError("bad"), right=KeyError("metadata")), partial_credit=False)
    with pytest.raises(EnvironmentFault, match=r"the scorer of brittle fails on the task's own answer too \(KeyError"):
        reward("x", task("right"))


def test_a_scorer_that_crashes_and_does_not_pay_the_right_answer_is_a_fault():
    reward = scored(Scorer(x=TypeError("bad"), right=0.5), partial_credit=True)
    with pytest.raises(EnvironmentFault, match=r"pays only 0.5 for the task's own answer 'right'"):
        reward("x", task("right"))


def test_a_task_without_an_answer_tries_its_scorer_on_an_empty_one():
    assert scored(Scorer(x=TypeError("bad"), nothing=0.0), partial_credit=True)("x", task(None)) == 0.0
    with pytest.raises(EnvironmentFault, match="fails on the task's own answer too"):
        scored(Scorer(x=TypeError("bad"), nothing=TypeError("bad")), partial_credit=True)("x", task(None))


def test_what_no_answer_can_cause_is_not_taken_for_a_wrong_answer():
    with pytest.raises(OSError, match="disk"):
        scored(Scorer(x=OSError("disk"), right=1.0), partial_credit=False)("x", task("right"))


@pytest.mark.parametrize("partial_credit", [True, False])
def test_a_score_of_nan_is_passed_on_and_not_made_a_zero(partial_credit):
    assert math.isnan(scored(Scorer(x=math.nan), partial_credit=partial_credit)("x", task("right")))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_datasets_say_why(name):
    with pytest.raises(ConfigError) as caught:
        suite(ReasoningGym(task=name))
    assert caught.value.message == f"{name} of reasoning-gym cannot be used: {REFUSED[name]}"


def test_the_nine_that_execute_answers_are_scored_in_the_sandbox():
    assert set(EXECUTED) == {
        *("countdown", "puzzle24", "simple_integration", "intermediate_integration", "polynomial_multiplication"),
        *("string_insertion", "spiral_matrix", "binary_matrix", "n_queens"),
    }
    assert not {*EXECUTED, *BUSY} & set(REFUSED)


EXECUTING = {"eval", "exec", "parse_expr", "sympify"}
OWN_ONLY = {"basic_arithmetic", "bitwise_arithmetic", "number_sorting"}
"""These execute what they made themselves, and never an answer: read in reasoning-gym 0.1.25."""


def test_no_scorer_that_works_in_this_process_executes_anything():
    """Of a version that nobody has read, a dataset that does is found here first."""
    found = set()
    for name, (kind, _) in DATASETS.items():
        nodes = ast.walk(ast.parse(inspect.getsource(sys.modules[kind.__module__])))
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        called = {getattr(function, "id", getattr(function, "attr", "")) for function in calls}
        found |= {name} if called & EXECUTING else set()
    assert found - {*EXECUTED, *BUSY, *REFUSED} == OWN_ONLY


@pytest.mark.parametrize("partial_credit", [True, False])
@pytest.mark.parametrize("none", ["NaN", "nan", "-NaN", "sNaN", "nan0"])
async def test_numbers_that_are_none_are_wrong(none, partial_credit):
    made = suite(ReasoningGym(task="number_sorting", heldout=1, partial_credit=partial_credit))
    task = made.training_task(0)
    own = task.data["answer"]
    assert await paid(made, task, own) == 1.0
    assert await paid(made, task, re.sub(r"-?[0-9.]+", none, own)) == 0.0


def test_a_word_that_looks_like_none_is_no_number():
    assert not any(map(NO_NUMBER.search, ("banana", "Nancy", "finance", "nano", "snank")))
    assert all(map(NO_NUMBER.search, ("nan", "[NaN, 1]", "nan+1j", "(nan)", "-sNaN7")))


@pytest.mark.parametrize("name", EXECUTED)
async def test_they_pay_for_their_own_answer_and_execute_nothing(name, tmp_path):
    config = ReasoningGym(task=name, heldout=1, sandbox=PATIENT)
    task = _task(config, seed=1)
    reward, trace = in_tags(scored_inside(config)), tmp_path / "trace"
    code = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    assert EXECUTED[name].fullmatch(task.data["answer"])
    assert await reward(f"<answer>{task.data['answer']}</answer>", task) == 1.0
    for answer in (code, f"[{code}]", f"({code}) or 24", "().__class__", "", "no idea"):
        assert await reward(f"<answer>{answer}</answer>", task) == 0.0
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "hostile"),
    [("coin_flip", "1e999999999"), ("propositional_logic", "(" * 1999)],
)
async def test_an_answer_that_would_keep_a_scorer_busy_for_ever_is_wrong(name, hostile):
    config = ReasoningGym(task=name, heldout=1)
    tasks = [_task(config, seed=seed) for seed in range(2)]
    assert BUSY[name].fullmatch(hostile)
    assert [await scored_inside(config)(hostile, task) for task in tasks] == [0.0, 0.0]


async def test_those_that_can_be_kept_busy_pay_for_right_answers():
    config = ReasoningGym(task="coin_flip", heldout=1, sandbox=PATIENT)
    task = _task(config, seed=1)
    assert await scored_inside(config)(task.data["answer"], task) == 1.0
    config = config.model_copy(update={"task": "propositional_logic"})
    assert await scored_inside(config)("(P ∧ Q)", _task(config, seed=1)) == 1.0


@pytest.mark.parametrize(("name", "hostile"), [("puzzle24", "9**9**9**9"), ("simple_integration", "9**9**9**9*x")])
async def test_an_answer_that_keeps_a_scorer_busy_is_wrong(name, hostile):
    config = ReasoningGym(task=name, heldout=1, partial_credit=True)
    task = _task(config, seed=1)
    assert await scored_inside(config)(hostile, task) < 0.1
    patient = config.model_copy(update={"sandbox": PATIENT})
    assert await scored_inside(patient)(task.data["answer"], task) == 1.0


async def test_a_whole_suite_of_them_plays():
    made = suite(ReasoningGym(task="countdown", heldout=3, sandbox=PATIENT))
    for each in (*made.heldout_tasks(), made.training_task(0)):
        assert await paid(made, each, each.data["answer"]) == 1.0
        assert await paid(made, each, f"{each.data['answer']} + 1") == 0.0


@pytest.mark.skipif(not sys.flags.hash_randomization, reason="sets keep their order in this process")
@pytest.mark.parametrize("name", sorted(HASH_ORDERED))
def test_datasets_that_no_seed_reaches_say_what_would(name):
    with pytest.raises(ConfigError, match="start Python with PYTHONHASHSEED=0"):
        suite(ReasoningGym(task=name))


def test_a_misspelt_dataset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="no dataset 'chian_sum'; did you mean chain_sum"):
        suite(ReasoningGym(task="chian_sum"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"max_term": 3}, "no setting 'max_term'; did you mean max_terms"),
        ({"max_terms": 1}, "refuses the settings .* of chain_sum .AssertionError: max_terms must be >= min_terms"),
        ({"max_terms": "three"}, "refuses the settings .* of chain_sum .TypeError"),
        ({"seed": 3}, "settings.seed of chain_sum cannot be set"),
        ({"size": 3}, "settings.size of chain_sum cannot be set"),
    ],
)
def test_wrong_settings_are_named(settings, why):
    with pytest.raises(ConfigError, match=why):
        suite(ReasoningGym(settings=settings))


def test_a_space_too_small_to_hold_out_is_an_error():
    with pytest.raises(ConfigError, match="chain_sum: heldout is 201, but its settings make only 200 tasks"):
        suite(ReasoningGym(settings={"max_terms": 2, "max_digits": 1}, heldout=201))


def test_tasks_are_the_same_in_every_process():
    program = (
        "from fettle.config import ReasoningGym; from fettle.environments import suite\n"
        "made = suite(ReasoningGym(heldout=3))\n"
        "print(*[task.id for task in made.heldout_tasks()], made.training_task(7).id)"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    made = suite(ReasoningGym(heldout=3))
    here = " ".join([*(task.id for task in made.heldout_tasks()), made.training_task(7).id])
    assert there.strip() == here


@pytest.mark.parametrize("name", ["chain_sum", "gcd", "number_sorting", "letter_counting"])
async def test_every_scorer_may_work_in_the_sandbox(name):
    config = ReasoningGym(task=name, scoring="sandbox", sandbox=PATIENT, heldout=2)
    here, inside = suite(config.model_copy(update={"scoring": "needed"})), suite(config)
    for one in inside.heldout_tasks():
        right = str(one.data["answer"])
        assert await paid(inside, one, right) == 1.0
        for answer in ("", "no idea", "nan", right + right, "9" * 3000):
            assert await paid(inside, one, answer) == await paid(here, one, answer)
