"""What a run leaves: the documented names, keys and shapes, and a run that goes on to the byte."""

import hashlib
import json
import socket

import numpy as np
import pytest

from fettle.config import load_as
from fettle.config.router import RouterConfig
from fettle.errors import CheckpointError, ConfigError, StorageError, UnreachableError
from fettle.router.artifacts import RunFolder
from fettle.router.training import train
from fettle.tracking.claim import claim

DOCUMENTED_ROW = [
    *("update", "mean_reward", "avg_episode_return", "avg_episode_length", "avg_throughput", "avg_reliability"),
    *("avg_latency", "avg_collaboration_cost", "avg_violation_penalty"),
    *("policy_loss", "value_loss", "entropy", "approx_kl", "clip_frac"),
]
DOCUMENTED_METADATA = ["updates", "seed", "episode_length", "ppo_params", "reward_weights", "config_path"]
CHECKPOINTED = ("rllm.experiment.checkpointing.enabled=true", "rllm.experiment.checkpointing.frequency_steps=1")


@pytest.fixture
def left(small, tmp_path):
    """``left("name", ...)``: the folder that a small run leaves."""

    def run(name, *overrides, config_path=None):
        folder = tmp_path / name
        config = small("rllm.experiment.enabled=true", f"rllm.experiment.output_dir={folder}", *overrides)
        train(config, RunFolder(config, config_path))
        return folder

    return run


def contents(folder):
    return [(folder / name).read_bytes() for name in ("training_history.json", "policy_state.npz")]


def test_the_history_has_the_documented_keys_first_and_nothing_but_floats(left):
    rows = json.loads((left("run") / "training_history.json").read_text())
    assert [row["update"] for row in rows] == [1.0, 2.0, 3.0]
    assert all(list(row)[: len(DOCUMENTED_ROW)] == DOCUMENTED_ROW for row in rows)
    assert all(type(value) is float for row in rows for value in row.values())


def test_the_policy_has_the_documented_names_shapes_and_numbers(left):
    with np.load(left("run", "rllm.simulator.type=legacy") / "policy_state.npz", allow_pickle=False) as file:
        shapes = {name: file[name].shape for name in file.files}
        kinds = {file[name].dtype for name in file.files}
    assert shapes == {"policy_w": (4, 5), "policy_b": (5,), "value_w": (4,), "value_b": (1,)}
    assert kinds == {np.dtype("float32")}


def test_the_metadata_has_the_documented_keys_first_and_says_that_it_is_simulated(left, tmp_path):
    folder = left("run", "rllm.experiment.tags=[a, b]", config_path=tmp_path / "rllm.yaml")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert list(metadata)[: len(DOCUMENTED_METADATA)] == DOCUMENTED_METADATA
    assert len(metadata["ppo_params"]) == 10
    assert len(metadata["reward_weights"]) == 5
    assert metadata["config_path"] == str(tmp_path / "rllm.yaml")
    assert (metadata["updates"], metadata["tags"], metadata["schema_version"]) == (3, ["a", "b"], 1)
    assert metadata["simulated"] is True
    assert metadata["policy_sha256"] == hashlib.sha256((folder / "policy_state.npz").read_bytes()).hexdigest()
    assert metadata["versions"].keys() == {"python", "fettle", "numpy", "torch"}
    assert metadata["reward_terms"].keys() == metadata["reward_weights"].keys()
    assert sum(metadata["mode_frequencies"].values()) == pytest.approx(1)


def test_the_snapshot_is_the_resolved_configuration_and_does_the_run_again_to_the_byte(left, tmp_path):
    folder = left("run", "rllm.policy.type=mlp")
    again = load_as(RouterConfig, folder / "config_snapshot.yaml", [f"rllm.experiment.output_dir={tmp_path / 'again'}"])
    assert again.rllm.policy.hidden == 64
    train(again, RunFolder(again, None))
    assert contents(tmp_path / "again") == contents(folder)


@pytest.mark.parametrize("policy", ["linear", "mlp"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_byte(left, policy):
    whole = left("whole", f"rllm.policy.type={policy}", "rllm.trainer.updates=6")
    halves = ("halves", f"rllm.policy.type={policy}", *CHECKPOINTED, "rllm.experiment.resume=true")
    left(*halves)
    assert contents(left(*halves, "rllm.trainer.updates=6")) == contents(whole)


def test_after_a_resume_a_breaker_restores_what_it_would_have_restored_without(left):
    seed = "rllm.trainer.seed=7"
    settings = (*CHECKPOINTED, seed, "rllm.experiment.resume=true", "rllm.breakers.max_reward_drop=0.3")
    whole = left("whole", *settings, "rllm.trainer.updates=40")
    metadata = json.loads((whole / "metadata.json").read_text())
    stood = metadata["updates"]
    assert 0 < stood < 38
    left("halves", *settings, f"rllm.trainer.updates={stood + 1}")  # as far as the update that is then undone
    assert contents(left("halves", *settings, "rllm.trainer.updates=40")) == contents(whole)
    without = (seed, "rllm.breakers.enabled=false", f"rllm.trainer.updates={stood}")
    assert contents(left("good", *without)) == contents(whole)
    assert metadata["stopped"].startswith(f"update {stood + 1} was undone: the mean reward after it fell to")
    assert metadata["decisions"] == stood * 64
    good = json.loads((left("good", *without) / "metadata.json").read_text())
    assert metadata["mode_frequencies"] == good["mode_frequencies"]


def test_checkpoints_are_as_frequent_and_as_many_as_was_asked(left):
    def numbers(*overrides):
        folder = left("run", CHECKPOINTED[0], "rllm.trainer.updates=6", *overrides)
        return [int(path.stem.removeprefix("update-")) for path in sorted((folder / "checkpoints").iterdir())]

    assert numbers("rllm.experiment.checkpointing.frequency_steps=128") == [2, 4, 6]
    assert numbers(CHECKPOINTED[1], "rllm.experiment.checkpointing.keep_last_n=2") == [5, 6]
    assert numbers("rllm.experiment.checkpointing.enabled=false") == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ("rllm.ppo.gamma=0.5", r"was made with other settings: set experiment\.resume to false"),
        ("rllm.trainer.updates=2", r"is further than rllm\.trainer\.updates, which is 2: ask for 3 or more"),
    ],
)
def test_a_run_that_cannot_go_on_leaves_everything_as_it_was(left, changed, sentence):
    folder = left("run", *CHECKPOINTED)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=sentence):
        left("run", *CHECKPOINTED, "rllm.experiment.resume=true", changed)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_world_that_is_away_leaves_everything_as_it_was(left, tmp_path):
    left("run")
    before = contents(tmp_path / "run")
    away = ("rllm.rollout_service.enabled=true", "rllm.rollout_service.patience=0.1")
    for name in ("run", "new"):
        with pytest.raises(UnreachableError):
            left(name, *away, f"rllm.rollout_service.address=127.0.0.1:{closed_port()}")
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def test_a_folder_in_which_another_run_is_writing_is_left_to_it(left):
    folder = left("run")
    before = contents(folder)
    with claim(folder), pytest.raises(StorageError, match="is being written by another process"):
        left("run", "rllm.trainer.seed=7")
    assert contents(folder) == before


@pytest.mark.parametrize("resume", ["true", "false"])
def test_what_was_said_of_an_earlier_policy_does_not_stay_beside_a_new_one(left, resume):
    folder = left("run", *CHECKPOINTED)
    for name in ("evaluation.json", "evaluation.png"):
        (folder / name).touch()
    left("run", *CHECKPOINTED, f"rllm.experiment.resume={resume}", "rllm.trainer.updates=4")
    assert not list(folder.glob("evaluation.*"))


def test_a_checkpoint_of_an_earlier_release_is_one_sentence(left):
    newest = max((left("run", *CHECKPOINTED) / "checkpoints").iterdir())
    with np.load(newest) as file:
        kept = {name: file[name] for name in file.files if name != "episodes/modes"}
    np.savez(newest, **kept)
    with pytest.raises(CheckpointError, match=r"was made by an earlier release: set experiment\.resume to false"):
        left("run", *CHECKPOINTED, "rllm.experiment.resume=true")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive at all"])
def test_a_checkpoint_that_is_not_whole_is_one_sentence(left, damage):
    folder = left("run", *CHECKPOINTED)
    (folder / "checkpoints" / "update-000003.npz").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"update-000003\.npz cannot be read as arrays"):
        left("run", *CHECKPOINTED, "rllm.experiment.resume=true")


def test_without_the_switch_nothing_is_written(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(small())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(left, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be written to .*: change output_dir"):
        left("file")


def test_what_is_written_is_whole_after_every_update(small, tmp_path):
    config = small("rllm.experiment.enabled=true", f"rllm.experiment.output_dir={tmp_path / 'run'}")
    seen = []

    def look(row):
        history = tmp_path / "run" / "training_history.json"
        seen.append(len(json.loads(history.read_text())) if history.exists() else 0)

    train(config, RunFolder(config, None), look)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("rllm.experiment.output_dir=",), "output_dir"),
        (("rllm.experiment.enabled=false", "rllm.experiment.resume=true"), "set experiment.enabled to true"),
    ],
)
def test_a_folder_that_is_none_is_one_sentence(left, settings, sentence):
    with pytest.raises(ConfigError, match=sentence) as told:
        left("run", *settings)
    assert "\n" not in told.value.message
