"""Conformance, lines 16 to 23: what is learnt is what the formulas say."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from tinker import types
from transformers import AutoModelForCausalLM

from fettle.service.faces.tinker import control
from tests.service.faces.tinker.programs import adam, batch, datum, made, retrieved, sdk_of, sent, sequences


@pytest.fixture
def theirs(training, http, tiny_model, tmp_path):
    """The model being trained as torch and PEFT have it, its fresh adapter read from a download."""
    path = training.save_weights_external("begin").result().path
    _, _, run, kind, name = path.split("/")
    urls = http.get(f"/training_runs/{run}/checkpoints/{kind}/{name}/external_weights_urls").json()["urls"]
    for file, url in urls.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(http.get(url, headers={"X-API-Key": ""}).read())
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32")
    return PeftModel.from_pretrained(base, tmp_path, is_trainable=True)


def test_16_cross_entropy_is_a_weighted_sum(training, theirs):
    data = [datum(s, weights=w) for s, w in zip(sequences(3), random(3, 11), strict=True)]
    loss = training.forward_backward(data, "cross_entropy").result().metrics["loss:sum"]
    weights = torch.tensor(random(3, 11))
    expected = sum(-(w * logprobs(theirs, s)).sum() for s, w in zip(sequences(3), weights, strict=True))
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    expected.backward()
    assert training.optim_step(adam()).result().metrics["grad_norm"] == pytest.approx(norm(theirs), rel=1e-3)


def test_17_calls_and_parts_of_calls_add_up(sdk, http):
    whole, parted, mixed = (made(http, seed=3) for _ in range(3))
    first, second, third = (batch(2, seed=seed) for seed in range(3))
    ends = {
        whole: [(1, [*first, *second, *third])],
        parted: [(1, first), (2, second), (3, third)],
        mixed: [(2, second), (3, third), (1, first)],
    }
    norms = []
    for model, requests in ends.items():
        for seq, data in requests:
            assert sent(http, model, seq, data).status_code == 200
        step = http.post("/optim_step", json={"model_id": model, "seq_id": 4, "adam_params": {}}).json()
        norms.append(retrieved(http, step["request_id"])["metrics"]["grad_norm"])
    assert norms == [pytest.approx(norms[0], rel=1e-6)] * 3


def test_17_a_call_that_the_client_parts_is_one_call(shared, monkeypatch):
    monkeypatch.setitem(control.CLIENT, "fwdbwd_max_chunk_len", 2)
    with sdk_of(shared) as parting:
        training = parting.create_lora_training_client("tiny", rank=4, seed=3).result()
        parts = training.forward_backward(batch(5), "cross_entropy").result()
        norm_of_parts = training.optim_step(adam()).result().metrics["grad_norm"]
    monkeypatch.undo()
    with sdk_of(shared) as one:
        training = one.create_lora_training_client("tiny", rank=4, seed=3).result()
        whole = training.forward_backward(batch(5), "cross_entropy").result()
        norm_of_whole = training.optim_step(adam()).result().metrics["grad_norm"]
    assert parts.metrics["loss:sum"] == pytest.approx(whole.metrics["loss:sum"], rel=1e-5)
    assert norm_of_parts == pytest.approx(norm_of_whole, rel=1e-5)
    for ours, other in zip(parts.loss_fn_outputs, whole.loss_fn_outputs, strict=True):
        assert np.allclose(ours["logprobs"].to_numpy(), other["logprobs"].to_numpy(), atol=1e-5)


def test_18_forward_reads_and_leaves_gradients_alone(training):
    back = training.forward_backward(batch(), "cross_entropy").result()
    read = training.forward(batch(3, seed=7), "cross_entropy").result()
    same = training.forward(batch(), "cross_entropy").result()
    assert np.array_equal(told(back)[0], told(same)[0])
    assert len(told(read)) == 3
    alone = training.optim_step(adam(0.0)).result().metrics["grad_norm"]
    training.forward_backward(batch(), "cross_entropy")
    assert training.optim_step(adam(0.0)).result().metrics["grad_norm"] == pytest.approx(alone, rel=1e-6)


def test_19_a_fresh_adapter_changes_nothing_and_is_fixed_by_its_seed(sdk, reference):
    data = [datum(tokens) for tokens in sequences(2)]
    after = []
    for seed in (1, 1, 2):
        training = sdk.create_lora_training_client("tiny", rank=4, seed=seed).result()
        fresh = told(training.forward(data, "cross_entropy").result())
        for ours, tokens in zip(fresh, sequences(2), strict=True):
            assert np.allclose(ours, logprobs(reference, tokens).detach(), atol=1e-5)
        training.forward_backward(data, "cross_entropy")
        training.optim_step(adam())
        after.append(told(training.forward(data, "cross_entropy").result())[0])
    assert np.array_equal(after[0], after[1])
    assert not np.array_equal(after[0], after[2])


def importance_sampling(lp, q, a, _):
    return -((lp - q).exp() * a).sum()


def ppo(lp, q, a, _, low=0.8, high=1.2):
    ratio = (lp - q).exp()
    return -torch.minimum(ratio * a, ratio.clamp(low, high) * a).sum()


def cispo(lp, q, a, _, low=0.0, high=4.0):
    return -((lp - q).exp().clamp(low, high).detach() * lp * a).sum()


def dro(lp, q, a, _, beta=0.05):
    return -(lp * a - beta / 2 * (lp - q).square()).sum()


def gspo(lp, q, a, mask, low=1 - 3e-4, high=1 + 4e-4):
    mean = ((lp.detach() - q) * mask).sum() / mask.sum()
    ratio = (mean + lp - lp.detach()).exp()
    return -torch.minimum(ratio * a, ratio.clamp(low, high) * a).sum()


LOSSES = {
    "importance_sampling": (importance_sampling, {}, {}),
    "ppo": (ppo, {}, {}),
    "ppo, wider": (ppo, {"clip_low_threshold": 0.5, "clip_high_threshold": 1.8}, {"low": 0.5, "high": 1.8}),
    "cispo": (cispo, {}, {}),
    "cispo, both": (cispo, {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}, {"low": 0.8, "high": 1.2}),
    "dro": (dro, {}, {}),
    "dro, nearer": (dro, {"beta": 0.5}, {"beta": 0.5}),
    "gspo": (gspo, {}, {}),
    "gspo, wider": (gspo, {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}, {"low": 0.8, "high": 1.2}),
}


@pytest.mark.parametrize("case", LOSSES)
def test_20_policy_losses_and_their_gradients_are_those_of_autograd(training, theirs, case):
    formula, config, settings = LOSSES[case]
    read = np.stack([logprobs(theirs, tokens).detach().numpy() for tokens in sequences()])
    q, a = np.minimum(read + 0.5 * random(4, 11, 1), 0), random(4, 11, 2)
    mask = (random(4, 11, 3) > -0.5).astype(np.float32)
    extra = [{"sequence_ratio_mask": row} if "gspo" in case else {} for row in mask]
    data = [datum(s, logprobs=q[i], advantages=a[i], **extra[i]) for i, s in enumerate(sequences())]
    loss = training.forward_backward(data, case.split(",")[0], config or None).result().metrics["loss:sum"]
    tensors = [(torch.tensor(q[i]), torch.tensor(a[i]), torch.tensor(mask[i])) for i in range(4)]
    expected = sum(formula(logprobs(theirs, s), *tensors[i], **settings) for i, s in enumerate(sequences()))
    assert loss == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)
    expected.backward()
    assert training.optim_step(adam()).result().metrics["grad_norm"] == pytest.approx(norm(theirs), rel=2e-3)


def test_21_a_loss_of_the_clients_own_has_the_gradient_of_autograd(training, theirs):
    def preference(data, read):
        chosen, rejected = read[0].sum(), read[1].sum()
        loss = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))
        return loss, {"margin": float(chosen - rejected)}

    done = training.forward_backward_custom(batch(2), preference).result()
    expected, _ = preference(None, [logprobs(theirs, tokens) for tokens in sequences(2)])
    expected.backward()
    assert "margin" in done.metrics
    assert training.optim_step(adam()).result().metrics["grad_norm"] == pytest.approx(norm(theirs), rel=1e-3)


def test_21_a_loss_of_the_clients_own_over_several_targets(training, theirs):
    targets = [[7, 9], [11, 3], [2, 250]]
    shares = torch.tensor([[0.75, 0.25], [0.5, 0.5], [1.5, -0.5]])

    def distilled(data, read):
        return -(shares * read[0]).sum(), {}

    data = [datum([65, 66, 67], targets=targets)]
    training.forward_backward_custom(data, distilled).result()
    distilled(None, [logprobs(theirs, [65, 66, 67], targets)])[0].backward()
    assert training.optim_step(adam()).result().metrics["grad_norm"] == pytest.approx(norm(theirs), rel=1e-3)


def test_22_sparse_rows_train_as_dense_ones_do(sdk):
    targets, weights = torch.zeros(11, 6, dtype=torch.int64), torch.zeros(11, 6)
    targets[3, 2], weights[3, 2], targets[9, 0], weights[9, 0] = 17, 0.5, 0, 2.0
    norms = []
    for make in (types.TensorData.from_torch_sparse, types.TensorData.from_torch):
        training = sdk.create_lora_training_client("tiny", rank=4, seed=3).result()
        inputs = {"target_tokens": make(targets), "weights": make(weights)}
        one = types.Datum(model_input=types.ModelInput.from_ints(sequences()[0][:-1]), loss_fn_inputs=inputs)
        done = training.forward_backward([one], "cross_entropy").result()
        assert done.loss_fn_outputs[0]["logprobs"].to_numpy().shape == (11, 6)
        norms.append((done.metrics["loss:sum"], training.optim_step(adam()).result().metrics["grad_norm"]))
    assert norms[0] == norms[1]


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"grad_clip_norm": 0.05}], ids=str)
def test_23_steps_are_those_of_adamw(training, theirs, settings):
    decay = settings.get("weight_decay", 0.0)
    optimizer = torch.optim.AdamW(trained(theirs), betas=(0.9, 0.95), eps=1e-12, weight_decay=decay)
    for step, rate in enumerate((1e-2, 5e-3, 2e-2)):
        training.forward_backward(batch(2, seed=step), "cross_entropy").result()
        training.optim_step(adam(rate, **settings)).result()
        sum(-logprobs(theirs, tokens).sum() for tokens in sequences(2, seed=step)).backward()
        if "grad_clip_norm" in settings:
            torch.nn.utils.clip_grad_norm_(trained(theirs), settings["grad_clip_norm"])
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    ours = told(training.forward(batch(2, seed=9), "cross_entropy").result())
    for read, tokens in zip(ours, sequences(2, seed=9), strict=True):
        assert np.allclose(read, logprobs(theirs, tokens).detach(), atol=2e-3)


def logprobs(model, tokens, targets=None) -> torch.Tensor:
    """[N] or [N, K] under a model of torch."""
    given = tokens[:-1] if targets is None else tokens
    wanted = torch.tensor(tokens[1:] if targets is None else targets)
    read = model(torch.tensor([given])).logits[0].log_softmax(-1)
    return read.gather(1, wanted.reshape(len(given), -1)).reshape(wanted.shape)


def random(*shape_and_seed) -> np.ndarray:
    rows, length, *seed = shape_and_seed
    return np.random.default_rng(seed or 0).normal(size=(rows, length)).astype(np.float32)


def trained(model) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def norm(model) -> float:
    return float(torch.cat([parameter.grad.flatten() for parameter in trained(model)]).norm())


def told(output: types.ForwardBackwardOutput) -> list[np.ndarray]:
    return [one["logprobs"].to_numpy() for one in output.loss_fn_outputs]
