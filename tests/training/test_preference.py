"""Learning from preferences and ratings on a real engine."""

import asyncio
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import DPO, KTO, ORPO, LocalEngine, PreferenceRun, SimPO
from fettle.data import Preference
from fettle.engine.local import LocalBackend
from fettle.errors import DataError
from fettle.training import compared
from fettle.training.preference import reads_reference
from fettle.types import ForwardResult, Message

from .colours import HELDOUT, PAIRS, painter, pair, rated, small, trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return painter(tmp_path_factory.mktemp("models") / "painter")


@pytest.fixture(scope="module")
def template(model: str) -> Template:
    return Template(load_tokenizer(model))


@pytest.mark.parametrize(
    ("loss", "steps"),
    [
        ({"type": "dpo"}, 30),
        ({"type": "dpo", "variant": "robust", "label_smoothing": 0.1}, 30),
        ({"type": "dpo", "variant": "ipo", "length_normalized": True}, 40),
        ({"type": "simpo"}, 30),
        ({"type": "orpo", "beta": 1.0}, 60),
        ({"type": "kto"}, 30),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
async def test_held_out_accuracy_goes_from_chance_to_nearly_all(model, tmp_path, loss, steps):
    """T4. The held-out prompts ask of numbers that were never trained on, and no reply is better without its prompt."""
    examples, heldout = (rated(PAIRS), rated(HELDOUT)) if loss["type"] == "kto" else (PAIRS, HELDOUT)
    done = await trained(small(PreferenceRun, model, loss=loss, steps=steps), tmp_path, examples, heldout)
    assert done.first["heldout/accuracy"] == pytest.approx(0.5, abs=0.1)
    assert done.last["heldout/accuracy"] > 0.9
    assert done.last["heldout/accuracy_low"] > done.first["heldout/accuracy_high"]
    assert done.last["heldout/loss"] < done.first["heldout/loss"]
    assert done.last["heldout/margin"] > done.first["heldout/margin"]


async def test_a_policy_that_is_its_reference_prefers_nothing_and_loses_ln_2(model, tmp_path):
    done = await trained(small(PreferenceRun, model, steps=1), tmp_path)
    assert done.first["heldout/accuracy"] == 0.5
    assert done.first["heldout/margin"] == pytest.approx(0, abs=1e-6)
    assert done.memory.column("loss")[0] == pytest.approx(math.log(2), abs=1e-6)


async def told_by_samplers(weights: str, examples, template: Template) -> list[float]:
    """The log-probability that weights give each reply, summed over what follows its prompt, with its end."""
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=Path()))
    try:
        sampler = await engine.sampler(weights)
        sums = []
        for prompt, reply in examples:
            asked = template.prompt(prompt)
            whole = asked + template.conversation((*prompt, Message("assistant", reply)))[0][len(asked) :]
            end = max(place for place, token in enumerate(whole) if token in template.end_token_ids)
            found = await sampler.logprobs(whole[: end + 1])
            sums.append(sum(found[len(asked) :]))
    finally:
        engine.close()
    return sums


async def test_the_held_out_numbers_are_those_of_the_replies_against_the_reference(model, template, tmp_path):
    """An oracle that shares nothing with the loop: whole sequences, read from samplers of the two models."""
    loss = {"type": "dpo", "beta": 0.3, "label_smoothing": 0.1, "margin": 0.2}
    heldout = [pair(number, "red", margin=number / 100) for number in range(80, 90)]
    done = await trained(small(PreferenceRun, model, loss=loss, steps=5), tmp_path, PAIRS, heldout)
    both = [(each.prompt, reply) for each in heldout for reply in (each.chosen, each.rejected)]
    policy = np.array(await told_by_samplers(done.summary.checkpoint, both, template))
    rewards = 0.3 * (policy - await told_by_samplers(model, both, template))
    margins = rewards[0::2] - rewards[1::2]
    h = margins - 0.2 - np.array([each.margin for each in heldout])
    expected = np.mean(0.9 * np.log1p(np.exp(-h)) + 0.1 * np.log1p(np.exp(h)))
    assert done.last["heldout/loss"] == pytest.approx(expected, abs=1e-5)
    assert done.last["heldout/margin"] == pytest.approx(margins.mean(), abs=1e-5)
    assert done.last["heldout/accuracy"] == np.mean(margins > 0)


async def test_the_baseline_of_kto_is_the_divergence_on_replies_to_other_prompts(model, template, tmp_path):
    heldout = rated(HELDOUT[:6])[:6]
    only_good = [each for each in rated(PAIRS) if each.desirable]  # every reply grows likelier, and so z0 leaves 0
    run = small(PreferenceRun, model, loss={"type": "kto", "beta": 0.5}, steps=6)
    done = await trained(run, tmp_path, only_good, heldout)
    own = [(each.prompt, each.completion) for each in heldout]
    apart = [(each.prompt, other.completion) for each, other in zip(heldout, [*heldout[1:], heldout[0]], strict=True)]
    weights = done.summary.checkpoint
    ratios, strangers = [
        np.array(await told_by_samplers(weights, rows, template)) - await told_by_samplers(model, rows, template)
        for rows in (own, apart)
    ]
    assert 0.1 < strangers.mean() < ratios.mean() - 0.01
    side = np.array([1 if each.desirable else -1 for each in heldout])
    expected = np.mean(1 / (1 + np.exp(0.5 * side * (ratios - max(0.0, strangers.mean())))))
    assert done.last["heldout/loss"] == pytest.approx(expected, abs=1e-5)


def test_a_baseline_below_zero_is_zero(template):
    [first, second] = compared.encoded(template, dict(enumerate(rated(PAIRS[:1])))).values()
    data = compared.batch([first, second])
    apart = [compared.with_streams(each, reference_logprobs=np.zeros(len(each.tokens), np.float32)) for each in data]
    for ratio, expected in ((-1.0, 0.0), (2.0, 2.0)):
        said = [np.eye(len(each.tokens), dtype=np.float32)[-1] * ratio for each in apart]
        based = compared.with_baseline(data, apart, said)
        assert [each.scalars["kl_baseline"] for each in based] == [expected, expected]


async def test_the_reference_may_be_another_model(model, tmp_path):
    other = painter(tmp_path / "other", seed=1)
    done = await trained(small(PreferenceRun, model, reference=other, steps=1), tmp_path / "run")
    assert done.first["heldout/loss"] != pytest.approx(math.log(2), abs=1e-3)
    assert done.first["heldout/margin"] != 0


async def test_a_run_that_is_stopped_after_every_step_and_resumed_ends_with_the_same_bits(model, tmp_path, monkeypatch):
    """The reference is read ahead, and what is read together shows in the last bits: no two steps' data ever are."""
    calls: list[set[tuple[int, ...]]] = []
    read = LocalBackend.logprobs

    def recorded(self, weights, sequences, *, temperature):
        calls[-1].add(tuple(itertools.chain(*sequences)))
        return read(self, weights, sequences, temperature=temperature)

    async def part(name: str, *, stopped: bool) -> Path:
        stop = asyncio.Event()
        if stopped:
            stop.set()
        return Path((await trained(run, tmp_path / name, PAIRS, HELDOUT[:2], stop=stop)).summary.checkpoint)

    monkeypatch.setattr(LocalBackend, "logprobs", recorded)
    run = small(PreferenceRun, model, steps=3, batch_size=3)
    calls.append(set())
    whole = await part("whole", stopped=False)
    calls.append(set())
    parts = [await part("parts", stopped=True) for _ in range(run.steps)]
    assert len(set(parts)) == run.steps
    assert len(calls[0]) == 1 + run.steps
    assert calls[1] == calls[0]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (parts[-1] / file).read_bytes() == (whole / file).read_bytes()


async def test_adapters_learn_against_the_weights_beneath_them(model, tmp_path):
    policy = {"model": model, "lora": {"rank": 8}}
    run = small(PreferenceRun, model, policy=policy, steps=30, optimizer={"learning_rate": 1e-2})
    done = await trained(run, tmp_path)
    assert done.first["heldout/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert done.last["heldout/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("loss", "reads"),
    [
        (DPO(), True),
        (DPO(variant="ipo"), True),
        (DPO(reference_free=True), False),
        (SimPO(), False),
        (ORPO(), False),
        (KTO(), True),
    ],
)
def test_a_reference_is_opened_only_where_a_loss_reads_it(loss, reads):
    assert reads_reference(loss) == reads


def test_chosen_and_rejected_share_the_prompt_and_end_where_their_replies_end(template):
    [(chosen, rejected)] = compared.encoded(template, {0: PAIRS[0]}).values()
    asked = template.prompt(PAIRS[0].prompt)
    for reply, text in ((chosen, PAIRS[0].chosen), (rejected, PAIRS[0].rejected)):
        assert reply.tokens[: len(asked)].tolist() == asked
        assert len(asked) + reply.spoken == len(reply.tokens)
        assert reply.tokens[-1] in template.end_token_ids
        assert template.reply(reply.tokens[len(asked) :].tolist()).content == text


def test_what_a_template_writes_after_the_end_is_left_out(model):
    """Sampled replies have nothing there, and a reward model is read at the last token."""
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|end|>\n")
    trailing = Template(tokenizer)
    [(chosen, _)] = compared.encoded(trailing, {0: PAIRS[0]}).values()
    assert trailing.conversation((*PAIRS[0].prompt, Message("assistant", PAIRS[0].chosen)))[1][-1] == 0
    assert chosen.tokens[-1] in trailing.end_token_ids


def test_replies_inside_the_prompt_are_not_trained_on(template):
    prompt = (Message("user", "Paint 20 red"), Message("assistant", "20 is red"), Message("user", "Paint 21 blue"))
    talk = Preference(prompt, "21 is blue", "21 is red")
    [chosen, _] = compared.batch(list(compared.encoded(template, {0: talk}).values()))
    said = template.reply(chosen.tokens[chosen.loss_mask > 0].tolist())
    assert said.content == "21 is blue"


def test_a_reply_to_another_prompt_is_cut_where_it_does_not_fit(template):
    long = Preference((Message("user", "Paint 20 and 30 and 40 and 50 red"),), "red", "blue")
    rows = [rated([each])[0] for each in (long, pair(33, "blue"))]
    examples = list(compared.encoded(template, dict(enumerate(rows))).values())
    limit = max(len(reply.tokens) for (reply,) in examples)
    apart = compared.mismatched(examples)
    assert max(len(each.tokens) for each in apart) == limit
    assert all(each.loss_mask.any() for each in apart)


def test_every_pair_of_a_batch_weighs_the_same_and_is_told_apart_from_its_double(template):
    [only] = compared.encoded(template, {0: pair(20, "red", margin=0.5)}).values()
    data = compared.batch([only, only])
    assert [each.group for each in data] == ["0", "0", "1", "1"]
    assert [each.scalars for each in data] == [
        {"preferred": preferred, "margin": 0.5, "weight": 0.5} for preferred in (1.0, 0.0, 1.0, 0.0)
    ]


@pytest.mark.parametrize(
    ("margin", "hit"), [(0.1, 1.0), (-0.1, 0.0), (0.0, 0.5), (compared.TIE / 2, 0.5), (-compared.TIE / 2, 0.5)]
)
def test_a_tie_is_half_right(margin, hit):
    assert compared.hits(np.array([margin], np.float32)) == [hit]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (DPO(beta=0.5), 0.5 * ((-3 + 2) - (-4 + 4))),
        (DPO(beta=0.5, reference_free=True), 0.5 * (-3 + 4)),
        (DPO(beta=0.5, length_normalized=True), 0.5 * ((-3 + 2) / 3 - 0 / 4)),
        (SimPO(beta=2.0), 2 * (-3 / 3 + 4 / 4)),
        (ORPO(beta=0.5), 0.5 * (-3 / 3 + 4 / 4)),
    ],
)
def test_the_reward_that_each_loss_implies(loss, expected):
    replies = [compared.Reply(np.arange(9, dtype=np.int32), n, float(n == 3), 0.0) for n in (3, 4)]
    data = [
        compared.with_streams(each, reference_logprobs=each.loss_mask * total / each.loss_mask.sum())
        for each, total in zip(compared.batch([tuple(replies)]), (-2, -4), strict=True)
    ]
    logprobs = [each.loss_mask * -1.0 for each in data]
    found = compared.margins(loss, data, ForwardResult(0.0, {}, logprobs, 7))
    assert found == pytest.approx([expected])


async def test_pairs_too_long_are_counted_and_the_first_is_quoted(model, tmp_path):
    long = [Preference((Message("user", f"Paint {n} at length"),), "red " * 60, "blue") for n in (1, 2)]
    told = "2 of 122 pairs are longer than max_tokens, which is 64: the first begins 'Paint 1 at length' and has"
    with pytest.raises(DataError, match=told):
        await trained(small(PreferenceRun, model), tmp_path, [*PAIRS, *long])
    assert not list((tmp_path / "checkpoints").iterdir())


async def test_what_does_not_fit_the_model_s_context_is_told_before_anything_is_made(tmp_path):
    short = painter(tmp_path / "short", context=32)
    long = Preference((Message("user", "Paint at length"),), "red " * 30, "blue")
    told = "1 of 121 pairs are longer than the model's context, which is 32: the first begins 'Paint at length' and has"
    with pytest.raises(DataError, match=told):
        await trained(small(PreferenceRun, short), tmp_path / "run", [*PAIRS, long])


async def test_patience_and_target_are_of_the_held_out_accuracy(model, tmp_path):
    run = small(PreferenceRun, model, steps=200, evaluation={"every": 10, "target": 0.9}, checkpoints={"every": 200})
    done = await trained(run, tmp_path)
    assert done.last["heldout/accuracy"] >= 0.9
    assert done.summary.steps == done.last["step"] < 100
    assert done.summary.best_checkpoint.endswith(f"step-{done.summary.steps:06d}")


async def test_the_same_seed_gives_the_same_numbers(model, tmp_path):
    """T10."""
    runs = [await trained(small(PreferenceRun, model, steps=4), tmp_path / name) for name in ("a", "b")]
    first, second = (
        [{k: v for k, v in row.items() if not k.startswith(("time", "speed"))} for row in r.memory.rows] for r in runs
    )
    assert first == second
