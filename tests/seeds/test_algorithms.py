"""A training service's page on algorithms: its own code, with nothing but the names of models changed."""

import re
import warnings

import numpy as np
import pytest
import pytest_asyncio
import safetensors.numpy

from fettle.client import ServiceClient
from fettle.compat.signal import local_client
from fettle.config import LocalEngine, TinyModel
from fettle.engine.local import make_tiny_model
from tests.service.served import serving

from .blocks import executed, headed

PAGE = headed("algorithms.md")
BATCH, SEQ_LEN, PROMPT_LEN, NUM_SAMPLES, RESPONSE_LEN = 4, 8, 3, 4, 5
SIZES = {
    "batch": BATCH,
    "seq_len": SEQ_LEN,
    "batch_size": BATCH,
    "prompt_len": PROMPT_LEN,
    "num_samples": NUM_SAMPLES,
    "response_len": RESPONSE_LEN,
}
RETURNED = {
    "Enhanced PPO": {
        *("policy_loss", "value_loss", "entropy", "kl_divergence", "approx_kl", "clip_fraction", "advantage_mean"),
        *("advantage_std", "explained_variance", "value_mean", "return_mean", "reward_mean"),
    },
    "Direct Preference Optimization (DPO)": {
        *("implicit_reward", "chosen_reward", "rejected_reward", "reward_margin", "preference_accuracy"),
    },
    "Group Relative Policy Optimization (GRPO)": set(),
    "Importance Sampling": {"is_ratio_mean", "is_ratio_max", "is_ratio_min", "clipped_fraction"},
    "Conservative PPO": {"kl_violation", "kl_penalty", "max_kl_threshold"},
    "Reward Modeling": {
        *("preference_accuracy", "reward_margin", "chosen_reward_mean", "rejected_reward_mean"),
        *("chosen_reward_std", "rejected_reward_std"),
    },
}
"""The metrics that the page lists for each algorithm."""
VARIABLES = {
    "Enhanced PPO": "ppo_batch",
    "Direct Preference Optimization (DPO)": "dpo_batch",
    "Group Relative Policy Optimization (GRPO)": "grpo_batch",
    "Importance Sampling": "is_batch",
    "Conservative PPO": "cppo_batch",
    "Reward Modeling": "rm_batch",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), folder, texts=["hello there"] * 9)


@pytest.fixture(scope="module")
def service(tmp_path_factory, model):
    with serving(tmp_path_factory.mktemp("service") / "state", model) as served:
        yield served


@pytest.fixture
def base_model(client, model):
    """What the client calls the model."""
    return "tiny" if isinstance(client, ServiceClient) else model


@pytest_asyncio.fixture(params=["in this process", "over HTTP"])
async def client(request, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page's own defaults, which warn
        if request.param == "over HTTP":
            served = request.getfixturevalue("service")
            async with ServiceClient(served.url, served.key) as remote:
                yield remote
        else:
            with local_client(tmp_path / "checkpoints", engine=LocalEngine(threads=1)) as made:
                yield made


@pytest.mark.parametrize("algorithm", RETURNED)
async def test_each_usage_runs_on_its_batch_format_and_returns_its_metrics(algorithm, client, base_model):
    head = "reward" if algorithm == "Reward Modeling" else "value"
    training_client = client.get_training_client(await client.create_run(base_model, head=head))
    columns = batch(shapes(algorithm))
    names = {"training_client": training_client, VARIABLES[algorithm]: columns}
    result = (await executed(ours(PAGE[f"{algorithm}: Usage"], base_model), names))["result"]
    assert RETURNED[algorithm] <= set(result["metrics"])
    assert np.isfinite([result["loss"], *result["metrics"].values()]).all()
    assert (await training_client.optim_step())["grad_norm"] > 0


async def test_the_three_stages_run_and_move_both_models(client, base_model, tmp_path):
    policy_id, reward_run_id = await client.create_run(base_model), await client.create_run(base_model, head="reward")
    training_client, reward_client = (client.get_training_client(name) for name in (policy_id, reward_run_id))
    both = {"policy": training_client, "reward": reward_client}
    before = [await weights(client, each, tmp_path / f"{name}-0") for name, each in both.items()]
    names = {
        "client": client,
        "training_client": training_client,
        "reward_run_id": reward_run_id,
        "sft_data": [{name: batch(shapes("Enhanced PPO"))[name] for name in ("input_ids", "attention_mask")}],
        "preference_data": [batch(shapes("Reward Modeling"))],
        "rl_data": [batch(shapes("Enhanced PPO"))],
    }
    await executed(ours(PAGE["Complete RLHF Pipeline: Three-Stage RLHF"], base_model), names)
    stepped = [await each.save_state(f"{name}-end") for name, each in both.items()]
    assert [saved["step"] for saved in stepped] == [2, 1]
    after = [await weights(client, each, tmp_path / f"{name}-1") for name, each in both.items()]
    for old, new in zip(before, after, strict=True):
        assert any(not np.array_equal(old[name], new[name]) for name in old)


def ours(code: str, model: str) -> str:
    """The page's code with a model that is here in the place of one that is not."""
    return code.replace("meta-llama/Llama-3.2-1B", model)


def shapes(algorithm: str) -> dict[str, list[int]]:
    """The columns of a batch format as the page writes it, with sizes for its letters; of two shapes the first."""
    page = PAGE.get(f"{algorithm}: Batch Format", PAGE["Enhanced PPO: Batch Format"])
    return {
        name: [SIZES[size] for size in shape.split(", ")] for name, shape in re.findall(r'"(\w+)": \[([^\]]*)\]', page)
    }


def batch(columns: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Numbers of those shapes."""
    random = np.random.default_rng(0)
    found = {}
    for name, shape in columns.items():
        if "ids" in name:
            found[name] = random.integers(7, 250, shape)
        elif "mask" in name:
            found[name] = np.ones(shape, int)
        elif "log_probs" in name:
            one = -5.5  # near what a model of random weights says of any token
            found[name] = np.full(shape, one if len(shape) == 2 else (SEQ_LEN - 1) * one)
        else:
            found[name] = random.normal(size=shape)
    if "old_values" in found:
        found["old_values"] = found["values"]
    return found


async def weights(client, training_client, folder) -> dict[str, np.ndarray]:
    saved = (await training_client.save_state(folder.name))["checkpoint_path"]
    if isinstance(client, ServiceClient):
        saved = await client.download_checkpoint(saved, folder)
    return safetensors.numpy.load_file(f"{saved}/adapter_model.safetensors")
