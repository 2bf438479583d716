"""Recipes at a service: the same numbers as in this process, a console that sees them, and runs that go on."""

import asyncio
import json
import os
import signal

import numpy as np
import pytest
import safetensors.numpy

from fettle.cli import build, models
from fettle.cli.evaluated import evaluation
from fettle.cli.worlds import Speaker
from fettle.client import ServiceClient
from fettle.client.kept import NOTE, kept
from fettle.config import RLRun, SamplingParams, ServiceEngine
from fettle.errors import ConfigError, UnreachableError

TIMED = ("time", "speed/", "engine/")
RECIPE = {
    "environments": [
        {
            "type": "jsonl",
            "path": "questions.jsonl",
            "reward": "rewarded_letters:letters",
            "answer_in": "text",
            "heldout": 6,
            "system": None,
        }
    ],
    "steps": 3,
    "groups_per_step": 2,
    "group_size": 4,
    "minibatches": 2,
    "sampling": {"max_tokens": 6},
    "optimizer": {"learning_rate": 1e-2},
    "evaluation": {"every": 2, "tasks": 6},
    "checkpoints": {"every": 1, "keep": 2},
}


REWARD = "def letters(reply, task):\n    return sum(map(str.isalpha, reply)) / max(1, len(reply))\n"


def rl(model: str, engine: object, **settings) -> RLRun:
    given = {"policy": {"model": model, "lora": {"rank": 4}}, "engine": engine, **RECIPE, **settings}
    return RLRun.model_validate(given)


@pytest.fixture(scope="module")
def service(served, tmp_path_factory):
    """What a recipe says of the engine; beside it lie questions and a reward."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "rewarded_letters.py").write_text(REWARD)
    rows = (json.dumps({"prompt": f"What is {n} and {n + 1}?", "answer": f"{2 * n + 1}"}) for n in range(12))
    (desk / "questions.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        patch.syspath_prepend(str(desk))
        patch.setenv("HOME", str(desk / "home"))
        patch.setenv("THE_KEY", served.key)
        yield {"type": "service", "url": served.url, "key_env": "THE_KEY"}


@pytest.fixture(scope="module")
def there(service, tmp_path_factory):
    """A run at the service that is over: its folder, and what came of it."""
    return asyncio.run(trained(rl("tiny", service, name="told"), tmp_path_factory.mktemp("there")))


async def trained(config, root):
    folder = build.new_folder(root, config)
    summaries = await build.run(config, folder)
    return folder, summaries[-1]


def numbers(folder) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMED)} for row in rows]


async def test_a_recipe_has_the_same_numbers_and_weights_here_and_at_a_service(served, there, tmp_path):
    here, ended = await trained(rl(served.model, {"threads": 1}), tmp_path / "here")
    folder, ended_there = there
    assert numbers(folder) == numbers(here)
    assert sum(row.get("advantage/nonzero", 0.0) for row in numbers(here)) > 0
    async with ServiceClient(served.url, served.key) as client:
        copy = await client.download_checkpoint(ended_there.checkpoint, tmp_path / "copy")
    weights = [
        safetensors.numpy.load_file(f"{folder}/adapter_model.safetensors") for folder in (ended.checkpoint, copy)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


async def test_the_service_is_told_of_the_run_and_keeps_what_the_folder_keeps(served, there):
    folder, summary = there
    run_id = kept(summary.checkpoint).uri.split("/")[2]
    async with ServiceClient(served.url, served.key) as client:
        training = client.get_training_client(run_id, take_over=False)
        assert (await training.status())["name"] == "told"
        assert (await training.status())["state"] == "completed"
        rows = [row for row in await training.metrics() if "reward/mean" in row]
        assert [row["step"] for row in rows] == [1, 2, 3]
        episodes = await client.episodes(run_id)
        assert {len(episode["messages"]) for episode in episodes} == {2}
        saved = {checkpoint["name"] for checkpoint in await client.list_checkpoints(run_id)}
    assert saved == {path.parent.name for path in folder.checkpoints.glob(f"*/{NOTE}")}


async def test_a_run_at_a_service_is_evaluated_there(service, there):
    _, summary = there
    found, _ = await evaluation(rl("tiny", service), Speaker(summary.checkpoint))
    assert found.reward == summary.last["heldout/reward"]
    said = await models.replies(summary.checkpoint, "What?", system=None, n=2, params=SamplingParams(max_tokens=4))
    assert len(said) == 2


async def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(service, there, tmp_path):
    config = rl("tiny", service)
    whole, ended = there
    begun = build.new_folder(tmp_path / "begun", config)
    await build.run(config, begun, callbacks=[StopAfter(begun)])
    assert (await build.run(config, begun))[-1].steps == 3
    assert kept(ended.checkpoint).digest == kept(str(begun.checkpoints / "step-000003")).digest
    assert numbers(begun) == numbers(whole)


class StopAfter:
    """Asks the run to stop after its second step, as Ctrl-C does."""

    def __init__(self, folder):
        self.folder = folder

    def after_step(self, step, row):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    def after_evaluation(self, step, score, row):
        return False


async def test_stages_go_on_from_each_other_at_the_service(service, tmp_path):
    policy = {"model": "tiny", "lora": {"rank": 4}}
    sums = {"type": "arithmetic", "digits": 1, "heldout": 6, "system": None}
    config = build.Pipeline.model_validate(
        {
            "stages": [
                {
                    "type": "sft",
                    "name": "first",
                    "policy": policy,
                    "engine": service,
                    "steps": 2,
                    "batch_size": 2,
                    "data": {"type": "worked_sums", "tasks": sums, "size": 20},
                },
                {
                    "type": "rl",
                    "name": "second",
                    "engine": service,
                    **RECIPE,
                    "steps": 1,
                    "policy": {**policy, "model": "previous"},
                },
            ]
        }
    )
    folder, summary = await trained(config, tmp_path)
    assert kept(summary.checkpoint).policy_version > 0
    assert kept(summary.checkpoint).digest[:12] in folder.report_path.read_text()


async def test_a_service_that_is_not_there_is_named_before_anything_is_made(service, tmp_path):
    engine = ServiceEngine(url="http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        build.new_folder(tmp_path / "runs", rl("tiny", engine))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"policy": {"model": {"type": "tiny"}}}, "policy.model describes a tiny model"),
        ({"profile": True}, "profile looks into the engine of this process"),
    ],
)
def test_what_a_service_cannot_do_is_refused(service, tmp_path, changed, said):
    with pytest.raises(ConfigError, match=said):
        build.new_folder(tmp_path, rl("tiny", service, **changed))


def test_a_key_that_is_not_where_the_recipe_says_is_told(service, served, tmp_path):
    engine = {"type": "service", "url": served.url}
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE, and there is no such environment variable"):
        build.new_folder(tmp_path, rl("tiny", {**engine, "key_env": "NO_SUCH_VARIABLE"}))
    with pytest.raises(ConfigError, match=r"no-such-file, which cannot be read"):
        build.new_folder(tmp_path, rl("tiny", {**engine, "key_file": str(tmp_path / "no-such-file")}))
