"""Stages are chained by what they leave, and what they left is known by its digest."""

import json
from pathlib import Path

import pytest

from fettle.config import Pipeline, RLRun, SFTRun, StageConfig, models_of, with_models
from fettle.errors import CheckpointError
from fettle.tracking import RunFolder
from fettle.training import Summary
from fettle.training.pipeline import Chain, train
from fettle.training.session import Progress

SUMS = {"type": "arithmetic", "digits": 1, "heldout": 4, "system": None}
STAGES = [
    {"type": "sft", "name": "warm-up", "policy": {"model": "base"}, "data": {"type": "worked_sums", "tasks": SUMS}},
    {
        "type": "reward_model",
        "name": "judge",
        "policy": {"model": "previous"},
        "data": {"type": "worked_pairs", "tasks": SUMS},
    },
    {
        "type": "rl",
        "name": "ppo",
        "policy": {"model": "stage:warm-up"},
        "environments": [SUMS],
        "preset": "ppo",
        "reference": "stage:warm-up",
        "critic": {"place": "model", "model": "previous"},
        "reward_model": {"model": "stage:judge"},
        "teacher": {"model": "hub/teacher"},
        "evaluation": {"tasks": 4},
    },
]
PIPELINE = Pipeline.model_validate({"stages": STAGES})


class Place:
    """A folder in which stages leave what they are told to, with a digest made of its words."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ran: list[StageConfig] = []
        self.leaves = {"warm-up": "1", "judge": "2", "ppo": "3"}
        self.interrupts: set[str] = set()

    async def run_stage(self, stage: StageConfig) -> Summary:
        """Leaves a newest checkpoint, and a best one before it."""
        self.ran.append(stage)
        folder = RunFolder.at(self.path / stage.name)
        interrupted = stage.name in self.interrupts
        for name in ("best", "newest"):
            (folder.checkpoints / name).mkdir(exist_ok=True)
            (folder.checkpoints / name / "weights").write_text(f"{name} {self.leaves[stage.name]}")
        progress = Progress(step=1, checkpoint="newest", best_checkpoint="best")
        folder.progress_path.write_text(progress.model_dump_json())
        checkpoints = [str(folder.checkpoints / name) for name in ("newest", "best")]
        return Summary(folder.path, 1, 0, 0.0, {}, {}, {}, *checkpoints, interrupted=interrupted)

    async def train(self):
        """The pipeline, by a process of its own."""
        self.ran.clear()
        return await train(PIPELINE, self.path, self.run_stage, Chain(self.path, digest))

    def weights(self, stage: str, name: str = "newest") -> Path:
        return self.path / stage / "checkpoints" / name / "weights"


def digest(weights: str) -> str | None:
    path = Path(weights) / "weights"
    return f"digest of {path.read_text()}" if path.is_file() else None


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_every_place_that_names_a_model_can_be_renamed():
    run = with_models(PIPELINE.stages[2], lambda named: f"{named}!")
    assert isinstance(run, RLRun)
    assert dict(models_of(run)) == {
        "policy.model": "stage:warm-up!",
        "reference": "stage:warm-up!",
        "critic.model": "previous!",
        "reward_model.model": "stage:judge!",
        "teacher.model": "hub/teacher!",
    }


async def test_a_reward_model_hands_on_its_best_and_the_others_their_newest(place):
    await place.train()
    warm_up, judge = str(place.weights("warm-up").parent), str(place.weights("judge", "best").parent)
    assert [dict(models_of(stage)) for stage in place.ran] == [
        {"policy.model": "base"},
        {"policy.model": warm_up},
        {
            "policy.model": warm_up,
            "reference": warm_up,
            "critic.model": judge,
            "reward_model.model": judge,
            "teacher.model": "hub/teacher",
        },
    ]


async def test_the_chain_is_written_down_with_digests_and_survives_a_move(place):
    ends = await place.train()
    told = json.loads((place.path / "pipeline.json").read_text())["stages"]
    assert told["judge"] == {
        "started_from": {
            "policy.model": {"weights": "warm-up/checkpoints/newest", "digest": "digest of newest 1"},
        },
        "left": {"weights": "judge/checkpoints/best", "digest": "digest of best 2"},
    }
    assert told["ppo"]["started_from"]["teacher.model"] == {"weights": "hub/teacher", "digest": None}
    assert [end.digest for end in ends] == [told[name]["left"]["digest"] for name in ("warm-up", "judge", "ppo")]
    place.path = place.path.rename(place.path.with_name("moved"))
    assert [end.digest for end in await place.train()] == [end.digest for end in ends]
    assert place.ran == []


async def test_what_was_interrupted_is_gone_on_with_and_what_was_finished_is_not_done_again(place):
    place.interrupts = {"judge"}
    assert [end.summary.interrupted for end in await place.train()] == [False, True]
    place.interrupts = set()
    assert len(await place.train()) == 3
    assert [stage.name for stage in place.ran] == ["judge", "ppo"]


@pytest.mark.parametrize("interrupted", ["judge", "none"])
async def test_a_changed_artifact_is_refused(place, interrupted):
    place.interrupts = {interrupted}
    await place.train()
    place.weights("warm-up").write_text("of someone else")
    with pytest.raises(CheckpointError, match=r"what warm-up left has changed: it was warm-up/checkpoints/newest with"):
        await place.train()


async def test_a_stage_is_not_gone_on_with_from_other_weights_than_it_began_with(place):
    """Whoever does an earlier stage again, with another result, begins the later ones anew."""
    place.interrupts = {"ppo"}
    await place.train()
    ledger = place.path / "pipeline.json"
    told = json.loads(ledger.read_text())
    place.weights("judge", "best").write_text("other")
    told["stages"]["judge"]["left"]["digest"] = "digest of other"
    ledger.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"what ppo started from as its critic\.model has changed"):
        await place.train()


async def test_a_stage_whose_folder_is_gone_is_done_again_and_must_leave_the_same(place):
    await place.train()
    for stage, leaves in (("ppo", "3"), ("ppo", "4")):
        place.leaves[stage] = leaves
        place.weights(stage).unlink()
        (place.path / stage / "progress.json").unlink()
        if leaves == "3":
            await place.train()
            assert [each.name for each in place.ran] == ["ppo"]
        else:
            with pytest.raises(CheckpointError, match="what ppo left has changed"):
                await place.train()


async def test_a_ledger_that_cannot_be_read_is_an_error(place):
    (place.path / "pipeline.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"pipeline\.json cannot be read"):
        await place.train()


def test_only_earlier_stages_can_be_named():
    late = {**STAGES[0], "name": "late", "policy": {"model": "stage:ppo"}}
    with pytest.raises(ValueError, match="the earlier stages are: warm-up"):
        Pipeline.model_validate({"stages": [STAGES[0], late, *STAGES[1:]]})
    assert isinstance(Pipeline.model_validate({"stages": [*STAGES, late]}).stages[-1], SFTRun)


@pytest.mark.parametrize(
    ("place", "named", "message"),
    [
        (("reward_model", "model"), "stage:warm-up", "sft, which gives no scores: name stage:judge"),
        (("policy", "model"), "stage:judge", "reward_model, which writes no replies: name stage:warm-up"),
        (("policy", "model"), "previous", "reward_model, which writes no replies: name stage:warm-up"),
        (("reference",), "previous", "reward_model, which writes no replies: name stage:warm-up"),
        (("teacher", "model"), "stage:judge", "reward_model, which writes no replies: name stage:warm-up"),
    ],
)
def test_a_stage_that_leaves_another_kind_of_model_is_refused(place, named, message):
    key, *inner = place
    ppo = {**STAGES[2], key: {**STAGES[2][key], inner[0]: named} if inner else named}
    with pytest.raises(ValueError, match=rf"stages\.2\.{'.'.join(place)} is {named}, a stage of type .*{message}"):
        Pipeline.model_validate({"stages": [*STAGES[:2], ppo]})


def test_a_reward_model_may_go_on_from_a_reward_model():
    again = {**STAGES[1], "name": "again"}
    assert len(Pipeline.model_validate({"stages": [*STAGES[:2], again]}).stages) == 3


def test_nothing_comes_before_the_first_stage():
    first = {**STAGES[2], "policy": {"model": "base"}, "reference": "previous"}
    with pytest.raises(ValueError, match=r"stages\.0\.reference is previous, and the earlier stages are: none"):
        Pipeline.model_validate({"stages": [first]})
