"""One policy: gradients add up, failures change nothing, versions can be pinned, and what is saved comes back."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from fettle.config import PPO, AdamW, CausalLM, ImportanceSampling, LocalEngine, LoRA, PolicySpec
from fettle.engine.local import LocalBackend, checkpoint
from fettle.engine.local.copied import saved_state
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import CheckpointError, ConfigError, EngineError, LossInputError, ModelError, StateError
from fettle.types import Datum, datum

from .conftest import capped

CPU = torch.device("cpu")
BUDGET = 64


def policy(source: str, *, lora: LoRA | None = None) -> LocalPolicy:
    spec = PolicySpec(model=source, lora=lora)
    return LocalPolicy(spec, load_model(source, device=CPU, precision="float32", trained=lora is None))


def batch(n: int = 6, seed: int = 0) -> list[Datum]:
    """Sequences of several lengths, prompts masked."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        length = int(random.integers(4, 16))
        mask = np.ones(length)
        mask[: random.integers(1, length - 1)] = 0
        rows.append(
            datum(
                random.integers(5, 300, length).tolist(),
                mask,
                sampling_logprobs=-random.random(length),
                advantages=random.normal(size=length),
                temperature=float(random.choice([1.0, 0.7])),
                group=str(i // 2),
            )
        )
    return rows


def weights(held: LocalPolicy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in held.model.parameters.items()}


def gradients(held: LocalPolicy) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in held.model.parameters.values() if p.grad is not None])


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_log_probabilities_equal_a_plain_forward_of_each_sequence(architecture, request):
    held = policy(request.getfixturevalue(architecture))
    data = batch()
    found = held.forward(data, CausalLM(), budget=BUDGET).logprobs
    for row, one in zip(found, data, strict=True):
        logits = held.model.module(input_ids=torch.tensor(one.tokens)[None].long()).logits[0] / one.temperature
        wanted = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(one.tokens)[1:, None].long())[:, 0]
        expected = np.concatenate([[0.0], wanted.detach().numpy()]) * one.loss_mask
        np.testing.assert_allclose(row, expected, atol=2e-5)


def test_a_model_that_caps_its_logits_gets_them_from_its_own_head(tmp_path, tiny):
    """Hidden states times the head's matrix would be wrong."""
    held = policy(capped(0.5, tiny, tmp_path / "gemma"))
    assert not held.model.head_is_one_matrix
    one = batch(1)[0]
    logits = held.model.module(input_ids=torch.tensor(one.tokens)[None].long()).logits[0] / one.temperature
    wanted = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(one.tokens)[1:, None].long())[:, 0]
    found = held.forward([one], CausalLM(), budget=BUDGET).logprobs[0]
    np.testing.assert_allclose(found[1:], wanted.detach().numpy() * one.loss_mask[1:], atol=2e-5)


@pytest.mark.parametrize("loss", [CausalLM(), PPO(), ImportanceSampling()], ids=lambda loss: loss.type)
def test_gradients_do_not_depend_on_the_micro_batches(tiny, loss):
    found = []
    for budget in (16, 32, 1024):
        held = policy(tiny)
        held.forward_backward(batch(), loss, budget=budget)
        found.append(gradients(held))
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=1e-4)


def test_the_sum_over_calls_equals_one_call(tiny):
    one, several = policy(tiny), policy(tiny)
    data = batch()
    whole = one.forward_backward(data, PPO(), budget=BUDGET)
    parts = [several.forward_backward(data[i : i + 2], PPO(), budget=BUDGET) for i in (0, 2, 4)]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, abs=1e-5)
    torch.testing.assert_close(gradients(several), gradients(one), atol=1e-5, rtol=1e-4)


def test_masked_tokens_get_no_gradient_through_the_loss(tiny):
    """Padding and prompt change nothing: other values in their streams, same gradient to the bit."""
    data = batch(2)
    noisy = [
        Datum(d.tokens, d.loss_mask, {k: v + 5 * (1 - d.loss_mask) for k, v in d.streams.items() if k == "advantages"}
              | {"sampling_logprobs": d.streams["sampling_logprobs"]}, d.temperature)
        for d in data
    ]  # fmt: skip
    one, other = policy(tiny), policy(tiny)
    one.forward_backward(data, PPO(), budget=BUDGET)
    other.forward_backward(noisy, PPO(), budget=BUDGET)
    assert torch.equal(gradients(one), gradients(other))


def test_a_refused_call_leaves_the_gradients_of_the_calls_before(tiny):
    held = policy(tiny)
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    before = gradients(held)
    long = datum([5] * 100, [0] + [1] * 99, sampling_logprobs=[-1] * 100, advantages=[1] * 100)
    with pytest.raises(ConfigError, match=r"engine\.train_tokens"):
        held.forward_backward([*batch(), long], PPO(), budget=BUDGET)
    assert torch.equal(gradients(held), before)


def test_a_call_that_breaks_half_way_leaves_nothing_behind(tiny):
    """The last micro-batch, the longest, makes an infinite ratio; those before had made gradients already."""
    held = policy(tiny)
    bad = datum([5] * 30, [0] + [1] * 29, sampling_logprobs=[-50] * 30, advantages=[-3e38] * 30)
    with pytest.raises(LossInputError, match="on data"):
        held.forward_backward([*batch(), bad], ImportanceSampling(), budget=32)
    assert all(p.grad is None for p in held.model.parameters.values())
    with pytest.raises(StateError, match="no gradient to apply"):
        held.optim_step(AdamW())


def test_only_the_adapter_is_trained_beside_frozen_weights(tiny):
    held = policy(tiny, lora=LoRA(rank=4))
    before = weights(held)
    for _ in range(2):
        held.forward_backward(batch(), PPO(), budget=BUDGET)
        held.optim_step(AdamW(learning_rate=0.1))
    assert all(torch.equal(p, before[name]) for name, p in held.model.parameters.items())
    changed = held.forward(batch(), CausalLM(), budget=BUDGET).loss
    assert changed != policy(tiny).forward(batch(), CausalLM(), budget=BUDGET).loss


@pytest.mark.parametrize("lora", [None, LoRA(rank=4, dropout=0.1)], ids=["full", "lora"])
def test_saved_and_loaded_it_goes_on_to_the_same_bits(tiny, tmp_path, lora):
    straight = policy(tiny, lora=lora)
    for step in range(2):
        straight.forward_backward(batch(seed=step), PPO(), budget=BUDGET)
        straight.optim_step(AdamW(learning_rate=0.01))
    straight.save(tmp_path / "two", optimizer=True)

    spec, version = saved_state(tmp_path / "two")
    source = tiny if lora else str(tmp_path / "two")
    model = load_model(source, device=CPU, precision="float32", trained=lora is None)
    resumed = LocalPolicy(spec, model, version=version)
    resumed.load(tmp_path / "two", optimizer=True)

    for held in (straight, resumed):
        held.forward_backward(batch(seed=9), PPO(), budget=BUDGET)
        held.optim_step(AdamW(learning_rate=0.01))
    a, b = (held.forward(batch(seed=3), CausalLM(), budget=BUDGET) for held in (straight, resumed))
    assert straight.version == resumed.version == 3
    assert all(np.array_equal(x, y) for x, y in zip(a.logprobs, b.logprobs, strict=True))


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "lora"])
def test_on_disk_weights_and_moments_are_apart_and_have_their_names(tiny, tmp_path, lora):
    """One buffer in memory is no business of whoever reads the files."""
    held = policy(tiny, lora=lora)
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    held.optim_step(AdamW())
    held.save(tmp_path / "x", optimizer=True)
    shapes = {name: p.shape for name, p in held._parameters.items()}
    file = tmp_path / "x" / ("adapter_model.safetensors" if lora else "model.safetensors")
    saved = safetensors.torch.load_file(file)
    assert {name: value.shape for name, value in saved.items()} == shapes
    assert file.stat().st_size < 4 * sum(map(torch.Size.numel, shapes.values())) + 20_000
    moments = safetensors.torch.load_file(tmp_path / "x" / "optimizer.safetensors")
    wanted = {f"{key}/{name}": shape for name, shape in shapes.items() for key in ("exp_avg", "exp_avg_sq")}
    wanted |= {f"step/{name}": torch.Size() for name in shapes}
    assert {name: value.shape for name, value in moments.items()} == wanted


def test_pinned_weights_outlive_the_steps_after_them(tiny):
    held = policy(tiny)
    held.pin("then")
    before = weights(held)
    for _ in range(2):
        held.forward_backward(batch(), PPO(), budget=BUDGET)
        held.optim_step(AdamW(learning_rate=0.1))
    now = weights(held)
    with held.as_pinned("then") as version:
        assert version == 0
        assert all(torch.equal(p, before[name]) for name, p in held.model.parameters.items())
    assert all(torch.equal(p, now[name]) for name, p in held.model.parameters.items())


def test_a_pin_costs_a_copy_only_when_a_step_comes(tiny):
    held = policy(tiny)
    held.pin("a")
    assert not held._past
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    held.optim_step(AdamW())
    assert list(held._past) == [0]
    held.unpin("a")
    assert not held._past


def test_weights_that_two_have_pinned_outlive_the_first_of_them(tiny):
    held = policy(tiny)
    before = weights(held)
    for name in ("a", "b"):
        held.pin(name)
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    held.optim_step(AdamW(learning_rate=0.1))
    held.unpin("a")
    with held.as_pinned("b"):
        assert all(torch.equal(p, before[name]) for name, p in held.model.parameters.items())


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "lora"])
def test_a_voice_is_todays_weights_themselves_and_a_copy_of_earlier_ones(tiny, lora):
    held = policy(tiny, lora=lora)
    held.pin("then")
    today = held.voice("then")
    assert today.tensors is None
    assert today.adapter is held._adapter
    before = {name: p.detach().clone() for name, p in held._parameters.items()}
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    held.optim_step(AdamW(learning_rate=0.1))
    then = held.voice("then")
    values = then.adapter.parameters if then.adapter else then.tensors
    assert then.version == 0
    assert all(torch.equal(values[name], value) for name, value in before.items())
    assert not all(torch.equal(p, before[name]) for name, p in held._parameters.items())


def test_a_pin_may_be_copied_at_once(tiny):
    held = policy(tiny)
    held.pin("a", copied=True)
    tensors = held.voice("a").tensors
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    held.optim_step(AdamW(learning_rate=0.1))
    assert all(held.voice("a").tensors[name] is tensor for name, tensor in tensors.items())
    held.unpin("a")
    assert not held._past


def test_a_step_that_memory_does_not_suffice_for_leaves_everything_as_it_was(tiny, monkeypatch):
    held, other = policy(tiny), policy(tiny)
    for each in (held, other):
        each.forward_backward(batch(), PPO(), budget=4096)
    before = gradients(held).clone()
    sizes: list[int] = []

    def short(values: torch.Tensor, **settings: object) -> torch.Tensor:
        sizes.append(values.numel())
        if len(sizes) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return torch.empty_like(values, **settings).zero_()

    with monkeypatch.context() as patched:
        patched.setattr(torch, "zeros_like", short)
        with pytest.raises(EngineError, match="not enough memory for a step of the optimizer: train fewer weights"):
            held.optim_step(AdamW(clip_norm=1e-6))
    assert held.version == 0
    assert torch.equal(gradients(held), before)
    for each in (held, other):
        each.optim_step(AdamW())
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(held).items())


def test_a_pin_that_memory_does_not_suffice_for_is_none(tiny, monkeypatch):
    held = policy(tiny)

    def short(values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "clone", short)
        with pytest.raises(EngineError, match=r"for a copy of the weights that a sampler reads: .*sampling_threads"):
            held.pin("p", copied=True)
    held.pin("p", copied=True)
    held.unpin("p")


def test_a_step_says_how_long_it_took(tiny):
    held = policy(tiny)
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    assert held.optim_step(AdamW()).seconds > 0


def test_every_step_drops_out_anew_and_a_repeated_one_the_same(tiny):
    def losses() -> list[float]:
        held = policy(tiny, lora=LoRA(rank=4, dropout=0.5))
        for name, parameter in held._parameters.items():
            if "lora_B" in name:
                parameter.data.normal_(generator=torch.Generator().manual_seed(0))
        found = []
        for _ in range(2):
            found.append(held.forward_backward(batch(), CausalLM(), budget=BUDGET).loss)
            held.optim_step(AdamW(learning_rate=1e-12))
        return found

    first = losses()
    assert first[0] != pytest.approx(first[1], rel=1e-4)
    assert losses() == first


def test_gradients_waiting_for_a_step_cannot_be_saved_away(tiny, tmp_path):
    held = policy(tiny)
    held.forward_backward(batch(), PPO(), budget=BUDGET)
    with pytest.raises(StateError, match="step first, then save"):
        held.save(tmp_path / "x", optimizer=True)
    assert not (tmp_path / "x").exists()
    held.save(tmp_path / "weights-only", optimizer=False)  # nobody goes on from these


def test_a_policy_that_could_not_be_loaded_leaves_no_weights_behind(tiny, tmp_path):
    policy(tiny, lora=LoRA(rank=4)).save(tmp_path / "weights-only", optimizer=False)
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match="was saved without its optimizer: load it with optimizer=False"):
        backend.load_policy("p", str(tmp_path / "weights-only"), optimizer=True)
    assert not backend._bases


def test_names_are_never_reused(tiny, tmp_path):
    held = policy(tiny)
    held.save(tmp_path / "x", optimizer=True)
    with pytest.raises(CheckpointError, match="never reused"):
        held.save(tmp_path / "x", optimizer=True)


def test_nothing_on_disk_is_pickle(tiny, tmp_path):
    policy(tiny).save(tmp_path / "x", optimizer=True)
    suffixes = {path.suffix for path in (tmp_path / "x").iterdir()}
    assert suffixes <= {".safetensors", ".json", ".jinja"}


def test_an_altered_file_is_found_out(tiny, tmp_path):
    policy(tiny).save(tmp_path / "x", optimizer=True)
    victim = tmp_path / "x" / "model.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what was saved"):
        saved_state(tmp_path / "x")


def test_a_missing_file_is_found_out(tiny, tmp_path):
    policy(tiny).save(tmp_path / "x", optimizer=True)
    (tmp_path / "x" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks optimizer\.safetensors"):
        saved_state(tmp_path / "x")


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        saved_state(tmp_path)


def test_a_digest_names_the_contents(tiny, tmp_path):
    first, second = (policy(tiny).save(tmp_path / name, optimizer=True) for name in ("a", "b"))
    assert first.digest == second.digest == checkpoint.digest(tmp_path / "a")


def test_token_ids_outside_the_vocabulary_are_named(tiny):
    held = policy(tiny)
    top = held.model.vocabulary
    with pytest.raises(
        LossInputError, match=rf"datum 1 holds token id {top}, and the vocabulary of .* is 0 to {top - 1}"
    ):
        held.forward([*batch(1), datum([1, top], [0, 1])], CausalLM(), budget=BUDGET)


def test_a_sequence_beyond_the_context_is_named(tiny):
    with pytest.raises(ModelError, match=r"datum 0 has 129 tokens, and the context of .* is 128"):
        policy(tiny).forward([datum([5] * 129, [0] + [1] * 128)], CausalLM(), budget=1000)


def test_bfloat16_arithmetic_keeps_float32_weights(tiny):
    spec = PolicySpec(model=tiny, precision="bfloat16")
    held = LocalPolicy(spec, load_model(tiny, device=CPU, precision="bfloat16", trained=True))
    exact = policy(tiny).forward(batch(), CausalLM(), budget=BUDGET).loss
    result = held.forward_backward(batch(), CausalLM(), budget=BUDGET)
    held.optim_step(AdamW())
    assert {p.dtype for p in held.model.parameters.values()} == {torch.float32}
    assert result.loss == pytest.approx(exact, rel=0.02)
    assert result.loss != exact


def test_the_scratch_folder_of_a_killed_save_is_not_taken_for_a_checkpoint(tiny, tmp_path):
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "junk").write_text("half")
    policy(tiny).save(tmp_path / "x", optimizer=True)
    assert not (tmp_path / "x" / "junk").exists()
    assert {p.name for p in Path(tmp_path).iterdir()} == {"x"}
