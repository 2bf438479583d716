"""A policy beside everyone else, on seeds it was not trained on; and policy files that are not what they seem."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from fettle.config import load_as
from fettle.config.router import RouterConfig
from fettle.errors import CheckpointError
from fettle.intervals import students_interval
from fettle.router.artifacts import RunFolder, described
from fettle.router.bandits import LinearThompson, Thompson
from fettle.router.evaluation import Evaluation, Standing, evaluate, write_evaluation
from fettle.router.figures import draw
from fettle.router.files import read_arrays
from fettle.router.heads import logits, values
from fettle.router.modes import MODES
from fettle.router.policy import RouterPolicy, load_policy
from fettle.router.training import train
from tests.router.conftest import LEARNING, SWITCHED_ON


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a linear policy that knows a little."""
    folder = tmp_path_factory.mktemp("run")
    own = (
        "experiment.enabled=true",
        f"experiment.output_dir={folder}",
        "trainer.updates=40",
        "trainer.episode_length=8",
    )
    config = load_as(RouterConfig, None, [*SWITCHED_ON, *LEARNING, *(f"rllm.{each}" for each in own)])
    train(config, RunFolder(config, None))
    return folder


@pytest.fixture(scope="module")
def found(run):
    return evaluate(load_policy(run), seeds=6, episodes=256)


def test_a_learned_policy_beats_every_fixed_mode_and_chance_and_a_bandit_and_no_one_beats_the_oracle(found):
    by_name = {each.name: each for each in found.others}
    assert by_name.keys() == {*MODES, "random", "thompson", "linear thompson", "oracle"}
    assert all(found.policy.low > by_name[name].high for name in (*MODES, "random", "thompson"))
    assert found.beaten[found.best_constant.name]
    assert found.beaten["thompson"]
    assert found.margins["thompson"].apart
    assert all(by_name["oracle"].mean >= each.mean for each in (*found.others, found.policy))


def test_the_bandit_finds_the_best_fixed_mode_and_the_linear_one_more(found):
    by_name = {each.name: each for each in found.others}
    assert by_name["thompson"].mean == pytest.approx(found.best_constant.mean, abs=0.03)
    assert by_name["linear thompson"].mean > by_name["thompson"].mean + 0.02


def standing(name, *means, learned=False):
    return Standing(name, *students_interval(means), learned=learned, means=means)


def test_episodes_that_were_the_same_are_compared_with_each_other():
    """Some seeds are harder than others by more than a policy is better: their own intervals overlap all the same."""
    policy, rival = standing("policy", 0.1, 0.5, 0.9), standing("thompson", 0.09, 0.48, 0.89, learned=True)
    found = Evaluation(policy, (standing("solo", 0.2, 0.5, 0.8), rival), 3, 1, 3, {})
    margin = found.margins["thompson"]
    assert (margin.mean, margin.low, margin.high) == pytest.approx(students_interval([0.01, 0.02, 0.01]))
    assert found.beaten == {"solo": False, "thompson": False}
    surer = Evaluation(standing("policy", 0.12, 0.51, 0.915), found.others, 3, 1, 3, {})
    assert surer.beaten == {"solo": False, "thompson": True}
    assert not surer.margins["thompson"].apart
    assert Evaluation(rival, (standing("solo", 0.12, 0.51, 0.915),), 3, 1, 3, {}).worse_than_constant


def test_whoever_chooses_by_chance_plays_the_episodes_of_everyone(small):
    """A bandit that has learned to work alone earns what working alone does, though it draws before it chooses."""
    arrays = {"policy_w": np.zeros((4, 5), np.float32), "policy_b": np.zeros(5, np.float32)}
    about = described(small("rllm.simulator.type=legacy"), config_path="", updates=1000)
    found = evaluate(RouterPolicy(arrays, about), seeds=2, episodes=4)
    by_name = {each.name: each for each in found.others}
    assert by_name["thompson"].means == by_name["solo"].means


def test_held_out_seeds_are_the_same_for_everyone_and_every_time(run, found):
    assert evaluate(load_policy(run), seeds=6, episodes=256) == found


def test_a_policy_that_does_worse_than_a_fixed_mode_is_told(run):
    policy = load_policy(run)
    swarm = RouterPolicy({**policy.arrays, "policy_b": np.float32([0, 0, 0, 0, 99])}, policy.metadata)
    worse = evaluate(swarm, seeds=4, episodes=128)
    assert worse.worse_than_constant
    assert not any(worse.beaten.values())


def test_it_is_written_and_drawn_and_says_that_it_is_simulated(found, tmp_path):
    write_evaluation(found, tmp_path)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["simulated"] is True
    assert written["policy"]["mean"] == found.policy.mean
    assert len(written["policy"]["means"]) == found.seeds
    assert written["margins"].keys() == written["beaten"].keys() == found.beaten.keys()
    draw([found, found], tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    write_evaluation(found, tmp_path)
    assert not (tmp_path / "evaluation.png").exists()  # it showed what was said before


def test_evaluations_with_and_without_an_oracle_are_drawn_beside_each_other(found, tmp_path):
    without = replace(found, others=tuple(each for each in found.others if each.name != "oracle"))
    for at, pair in enumerate(([found, without], [without, found])):
        draw(pair, tmp_path / f"{at}.png")
        assert (tmp_path / f"{at}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("bandit", [Thompson, lambda: LinearThompson(2)], ids=["mean", "linear"])
def test_a_bandit_settles_on_the_mode_that_pays(bandit):
    learning, rng = bandit(), np.random.default_rng(0)
    observations = rng.random((64, 2)).astype(np.float32)
    for _ in range(60):
        modes = learning.modes(observations, rng)
        learning.learn(observations, modes, (modes == 3) + rng.normal(0, 0.1, 64))
    assert (learning.modes(observations, rng) == 3).mean() > 0.95


def test_numpy_says_of_the_file_what_torch_said_of_the_tensors(small, tmp_path):
    config = small("rllm.policy.type=mlp", "rllm.experiment.enabled=true", f"rllm.experiment.output_dir={tmp_path}")
    keeper = Remembering(config)
    train(config, keeper)
    observations = np.random.default_rng(0).random((50, 7)).astype(np.float32)
    learner, policy = keeper.run.learner, load_policy(tmp_path)
    with torch.no_grad():
        seen = torch.from_numpy(observations)
        probabilities = logits(learner.parameters, seen).softmax(-1).numpy()
        expected = values(learner.parameters, seen).numpy() * learner.scale.deviation + learner.scale.mean
    np.testing.assert_allclose(policy.probabilities(observations), probabilities, atol=1e-6)
    np.testing.assert_allclose(policy.values(observations), expected, atol=1e-5)


class Remembering:
    """A run's folder that keeps hold of the run."""

    def __init__(self, config):
        self._folder = RunFolder(config, None)

    def resumed(self):
        return None

    def begin(self):
        self._folder.begin()

    def row(self, row, run):
        self._folder.row(row, run)

    def end(self, trained, run):
        self._folder.end(trained, run)
        self.run = run


def damaged(run, tmp_path, **changes):
    """A copy of a run with some of its metadata changed."""
    for name in ("policy_state.npz", "metadata.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    (tmp_path / "metadata.json").write_text(json.dumps({**metadata, **changes}))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy_sha256": "0"}, "its hash is another"),
        ({"features": ["traffic"]}, "holds arrays of shapes"),
        ({"features": 7}, "has no features that can be used"),
        ({"features": []}, "has no features that can be used"),
        ({"policy": {"type": "mlp", "hidden": 3}}, "holds arrays of shapes"),
        ({"policy": {"type": "mlp", "hidden": "3"}}, r"has no policy\.mlp\.hidden that can be used"),
        ({"policy": "linear"}, "has no policy that can be used"),
        ({"simulator": {"type": "world"}}, "has no simulator that can be used"),
        ({"reward_weights": {"latency": -1}}, r"has no reward_weights\.latency that can be used"),
        ({"decisions": None}, "has no decisions that can be used"),
        ({"episode_length": 0}, "has no episode_length that can be used"),
        ({"schema_version": 99}, "is not of schema 1"),
    ],
)
def test_a_policy_that_is_not_what_its_metadata_says_is_one_sentence(run, tmp_path, changes, sentence):
    with pytest.raises(CheckpointError, match=sentence) as told:
        load_policy(damaged(run, tmp_path, **changes))
    assert "\n" not in told.value.message


def test_a_policy_is_held_to_no_simulator_that_shows_something_else(run, tmp_path):
    policy = load_policy(damaged(run, tmp_path, simulator={"type": "legacy"}))
    with pytest.raises(CheckpointError, match=r"was trained on difficulty, .*, and its simulator shows traffic_load, "):
        evaluate(policy, seeds=2, episodes=1)


def bytes_of(save, *arrays, **named):
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (lambda whole: bytes_of(np.save, np.zeros(3)), "cannot be read as arrays"),
        (lambda whole: whole[:200], "cannot be read as arrays"),
        (lambda whole: whole.replace(b"descr", b"dasch"), "cannot be read as arrays"),
        (lambda whole: bytes_of(np.savez, policy_w=np.array([None])), "cannot be read as arrays"),
        (lambda whole: packed("policy_w", b"text"), "policy_w is none"),
        (lambda whole: packed("policy_w.npy", b"\x93NUMPY\x01\x00"), "cannot be read as arrays"),
    ],
)
def test_arrays_that_are_not_whole_are_one_sentence(run, tmp_path, contents, sentence):
    path = tmp_path / "policy_state.npz"
    path.write_bytes(contents((run / "policy_state.npz").read_bytes()))
    with pytest.raises(CheckpointError, match=sentence) as told:
        read_arrays(path)
    assert "\n" not in told.value.message


def packed(name, contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, contents)
    return buffer.getvalue()


def test_arrays_of_another_kind_are_one_sentence(run, tmp_path):
    arrays = {name: array.astype(np.str_) for name, array in load_policy(run).arrays.items()}
    contents = bytes_of(np.savez, **arrays)
    folder = damaged(run, tmp_path, policy_sha256=hashlib.sha256(contents).hexdigest())
    (folder / "policy_state.npz").write_bytes(contents)
    with pytest.raises(CheckpointError, match="in float32"):
        load_policy(folder)


def test_a_folder_without_a_policy_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no .*policy_state\.npz: name a folder"):
        load_policy(tmp_path)
