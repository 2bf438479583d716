"""The verbs, by what they print and leave and how they end."""

import json
import re

import numpy as np
import pytest

from fettle.router.modes import MODES
from fettle.router.policy import load_policy
from tests.router.conftest import SWITCHED_ON

SMALL = (*SWITCHED_ON, "rllm.ppo.rollout_length=64", "rllm.ppo.mini_batch_size=32", "rllm.trainer.episode_length=4")


def test_switched_off_it_ends_with_3(fettle, tmp_path):
    code, out, err = fettle("train", "--updates", 8, "--seed", 42)
    assert (code, out) == (3, "")
    assert "nothing was trained" in err
    assert list(tmp_path.iterdir()) == []


def test_switched_on_it_prints_a_line_an_update_and_leaves_artifacts(fettle, tmp_path):
    code, out, _ = fettle(
        "train", "--updates", 2, "--seed", 7, "--episode-length", 5, *SMALL[:-1], "rllm.experiment.enabled=true"
    )
    assert code == 0
    assert out.splitlines()[0].startswith("Update 1 | reward=")
    assert re.fullmatch(r"2 updates in \d+\.\d s", out.splitlines()[2])
    assert out.splitlines()[3] == "what it left: outputs/rllm (simulated: every reward comes from a simulator)"
    tree = [line.split()[0] for line in out.splitlines()[4:]]
    left = sorted(path.name + "/" * path.is_dir() for path in (tmp_path / "outputs" / "rllm").iterdir())
    assert tree == left
    assert "policy_state.npz" in tree
    metadata = json.loads((tmp_path / "outputs" / "rllm" / "metadata.json").read_text())
    assert (metadata["updates"], metadata["seed"], metadata["episode_length"]) == (2, 7, 5)


def test_the_log_has_an_object_a_line_and_only_where_both_switches_are_on(fettle, tmp_path):
    log = ("rllm.observability.logging.enabled=true", "rllm.observability.logging.destination=here/log.jsonl")
    fettle("train", "--updates", 2, *SMALL, *log)
    assert list(tmp_path.iterdir()) == []
    fettle("train", "--updates", 2, *SMALL, *log, "rllm.observability.enabled=true")
    lines = [json.loads(line) for line in (tmp_path / "here" / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1.0, 2.0]
    assert all(line["simulated"] is True for line in lines)
    fettle(
        "train",
        "--updates",
        2,
        *SMALL,
        *log,
        "rllm.observability.enabled=true",
        "rllm.observability.logging.level=error",
    )
    assert len((tmp_path / "here" / "log.jsonl").read_text().splitlines()) == 2


def test_a_breaker_ends_it_with_1(fettle):
    code, _, err = fettle("train", *SMALL, "rllm.breakers.min_entropy=1.7")
    assert code == 1
    assert re.fullmatch(
        r"fettle: update 1 was undone: entropy fell to 1\.6 nats; the policy is that after 0 updates\n", err
    )


def test_runs_are_evaluated_and_drawn(fettle, tmp_path):
    for at in ("a", "b"):
        fettle("train", "--updates", 1, *SMALL, "rllm.experiment.enabled=true", f"rllm.experiment.output_dir={at}")
    code, out, _ = fettle("evaluate", "a", "b", "--seeds", 2, "--episodes", 8)
    assert code == 0
    assert out.count("oracle") == 2
    assert out.splitlines()[0] == "a (simulated): mean reward of a decision, 2 held-out seeds, 64 decisions"
    assert re.search(r"  (beats|does not beat) thompson: [+-]\d\.\d{4} a decision in the same episodes, 95 % \[", out)
    assert (tmp_path / "b" / "evaluation.json").is_file()
    assert (tmp_path / "a" / "evaluation.png").is_file()


def test_a_log_is_replayed_and_its_bad_lines_are_told(fettle, tmp_path):
    fettle("train", "--updates", 1, *SMALL, "rllm.experiment.enabled=true", "rllm.experiment.output_dir=a")
    modes = ("solo", "consult", "collaborate", "consensus", "swarm")
    line = {"observation": [0.5] * 7, "propensity": 0.2, "reward": 1.0}
    lines = [json.dumps({**line, "mode": mode}) for mode in modes]
    (tmp_path / "log.jsonl").write_text("\n".join([lines[0], "{}", *lines[1:], *lines * 3]))
    code, out, err = fettle("replay", "log.jsonl", "a")
    assert code == 0
    # A router takes one mode for one observation: 4 of these 20 are that one.
    assert out.startswith("20 decisions, worth 4 to this policy; 1 lines were none\n  the policy is simulated: ")
    assert "doubly_robust" in out
    assert err == "fettle: log.jsonl:2: not an object of observation, mode, propensity, reward: not counted\n"
    never = [json.dumps({**line, "mode": mode}) for mode in modes if mode != liked(tmp_path / "a")]
    (tmp_path / "log.jsonl").write_text("\n".join(never))
    code, out, err = fettle("replay", "log.jsonl", "a")
    assert (code, out) == (1, "")
    assert err.startswith("fettle: no logged decision is one that the policy would take")


def liked(run):
    return MODES[int(load_policy(run).modes(np.full((1, 7), 0.5, np.float32))[0])]


def test_an_evaluation_that_a_fixed_mode_wins_fails_the_run(fettle):
    evaluated = ("rllm.evaluation.enabled=true", "rllm.evaluation.seeds=4", "rllm.evaluation.episodes=64")
    code, out, err = fettle(
        "train", "--updates", 1, *SMALL, *evaluated, "rllm.simulator.type=legacy", "rllm.trainer.episode_length=16"
    )
    assert code == 1
    assert "solo alone 0." in err
    assert "oracle" not in out  # these dynamics have none that is known


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "--config", "gone.yaml"), "gone.yaml: cannot be read"),
        (("train", "rllm.ppo.gama=1"), "did you mean 'rllm.ppo.gamma'"),
        (("evaluate", "gone"), "there is no gone/policy_state.npz"),
    ],
)
def test_what_is_wrong_is_one_sentence(fettle, arguments, sentence):
    code, _, err = fettle(*arguments)
    assert code in (1, 2)
    assert sentence in err
    assert len(err.splitlines()) == 1
