import pytest
from pydantic import ValidationError

from fettle.config import AdamW, Arithmetic, Cosine, PolicySpec, ReasoningGym, RLRun, Sampling


def rl(**settings):
    return RLRun(policy=PolicySpec(model="m"), environments=(Arithmetic(),), **settings)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (ReasoningGym, {"partial_credit": "yes"}),
        (ReasoningGym, {"partial_credit": 1}),
        (Arithmetic, {"digits": True}),
        (Arithmetic, {"digits": 2.0}),
        (AdamW, {"learning_rate": "1e-5"}),
        (PolicySpec, {"model": 5}),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(cls, settings):
    with pytest.raises(ValidationError):
        cls(**settings)


def test_a_whole_number_does_where_any_number_does():
    assert AdamW(learning_rate=1).learning_rate == 1.0


def test_a_list_does_for_a_tuple():
    assert Sampling(stop=["a", "b"]).stop == ("a", "b")


def test_a_variant_without_a_type_is_the_default_one():
    assert rl(schedule={"warmup_steps": 5}).schedule.type == "constant"


def test_a_variant_that_is_not_the_default_names_its_type():
    assert rl(schedule={"type": "cosine", "final": 0.5}).schedule == Cosine(final=0.5)


def test_what_json_cannot_hold_cannot_be_passed_to_a_dataset():
    with pytest.raises(ValidationError, match="JSON"):
        ReasoningGym(settings={"operators": ("+", "-")})


def test_json_gives_back_an_equal_run():
    run = rl(sampling=Sampling(stop=("a",)))
    assert RLRun.model_validate_json(run.model_dump_json()) == run


def test_a_critic_and_the_advantage_that_reads_it_come_together():
    with pytest.raises(ValueError, match=r"add critic: \{\}, or use preset: ppo"):
        rl(advantage="gae")
    with pytest.raises(ValueError, match="use gae, or leave critic out"):
        rl(critic={})
    assert rl(advantage="gae", critic={}).critic is not None
