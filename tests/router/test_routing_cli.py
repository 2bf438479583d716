"""The verbs of a router in use, by what they print and leave and how they end."""

import json
import shutil

import pytest

from fettle.config import PromotionGate
from fettle.router.evaluation import evaluate, write_evaluation
from fettle.router.policy import load_policy

AGENTS = ("--agent", "local:0:1", "--agent", "helper:0.02:4", "--agent", "reviewer:0.03:5")
TASK = [
    option
    for feature in ("difficulty=0.9", "stakes=0.9", "skill=0.4", "price=0.3", "traffic=0.2")
    for option in ("--feature", feature)
]


@pytest.fixture(scope="module")
def judged(runs, tmp_path_factory):
    """Copies of the runs with evaluations as large as the gate asks for, and ``hasty``, whose is smaller."""
    base, gate = tmp_path_factory.mktemp("judged"), PromotionGate()
    shutil.copytree(runs / "best", base / "hasty")
    for name in ("first", "better", "best"):
        folder = shutil.copytree(runs / name, base / name)
        write_evaluation(evaluate(load_policy(folder), seeds=gate.seeds, episodes=gate.episodes), folder)
    return base


@pytest.fixture
def fettle(fettle, tmp_path, judged):
    """As elsewhere, but beside copies of the runs."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    return fettle


def test_a_policy_is_promoted_told_of_and_gone_back_from(fettle, tmp_path):
    code, out, _ = fettle("promote", "better", "--why", "a first one")
    assert (code, out.splitlines()[0]) == (0, "version 1 is in use in outputs/router-registry; before: nothing")
    assert " alone, 95 % [" in out
    assert "10 held-out seeds (simulated)" in out
    fettle("promote", "best")
    code, out, err = fettle("status")
    assert (code, err) == (0, "")
    assert "version 2 is in use, promoted 20" in out
    assert [line[:6].strip() for line in out.splitlines()[1:3]] == ["> 2", "1"]
    code, out, _ = fettle("rollback", "--why", "complaints")
    assert (code, out) == (0, "version 1 is in use in outputs/router-registry\n")
    assert "version 1 is in use, gone back to 20" in fettle("status")[1]
    assert fettle("rollback")[1].endswith("routers take the fixed mode\n")
    lines = (tmp_path / "outputs" / "router-registry" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["why"] for line in lines] == ["a first one", "", "complaints", ""]


def test_what_is_refused_is_one_sentence_and_ends_with_4(fettle):
    for arguments, sentence in (
        (("promote", "first"), "that is not above 0: train it for longer"),
        (("promote", "hasty"), "is of 4 held-out seeds with 128 episodes each, and 10 with 256 are asked for"),
        (("promote", "nowhere"), "there is no nowhere/policy_state.npz"),
        (("rollback",), "has nothing in use already"),
        (("rollback", "--to", 3), "has no version 3: there is none"),
        (("promote", "first", "--dry-run"), "would be refused: first earns"),
    ):
        code, out, err = fettle(*arguments)
        assert (code, out) == (4, "")
        assert sentence in err
        assert len(err.splitlines()) == 1
    code, out, _ = fettle("status")
    assert code == 0
    assert "nothing was ever promoted" in out
    assert "5 entries in the audit log, 5 of them refusals" in out


def test_a_dry_run_writes_nothing(fettle, tmp_path):
    code, out, _ = fettle("promote", "best", "--dry-run")
    assert code == 0
    assert out.startswith("best would be promoted: it earns +0.")
    assert not (tmp_path / "outputs").exists()


def test_a_registry_that_is_damaged_is_told_and_ends_with_1(fettle, tmp_path):
    fettle("promote", "best")
    registry = tmp_path / "outputs" / "router-registry"
    (registry / "versions" / "000001" / "metadata.json").unlink()
    with (registry / "audit.jsonl").open("a") as file:
        file.write("{}\n")
    code, out, err = fettle("status")
    assert code == 1
    assert "> 1   damaged: " in out
    assert "line 2 of the audit log was cut short, altered, or follows one that was or is gone: hold outputs/" in err
    assert "what is in use cannot be used: " in err
    assert "use another version: by its number with fettle router rollback --to, where 0 is none\n" in err


def test_one_decision_is_explained(fettle):
    code, out, _ = fettle("route", *AGENTS)
    assert (code, out.splitlines()[0]) == (0, "consult: local, helper; 1 round, 0.02 USD, 4 s at the 95th percentile")
    fettle("promote", "best")
    code, out, _ = fettle("route", *AGENTS, *TASK, "exposure=full", "time_limit_s=60", "preferences.budget_usd=0.1")
    assert code == 0
    assert "by policy, at exposure full: the policy's likeliest mode that fits is " in out
    assert "not swarm: it costs at least 0.15 USD, over preferences.budget_usd, 0.1" in out
    assert "version 1 says (learned in a simulator)" in out
    assert "difficulty +" in out
    code, out, _ = fettle("route", *AGENTS, *TASK, "exposure=full", "time_limit_s=60", "--json")
    tree = json.loads(out)
    assert tree["mode"] == max(tree["probabilities"], key=tree["probabilities"].get)
    assert tree["contributions"]["difficulty"].keys() == tree["probabilities"].keys()
    assert tree["simulated"] is True
    code, out, _ = fettle("route", *AGENTS, *TASK, "exposure=full", "time_limit_s=60", "--confidence", 0.9)
    assert out.startswith("solo: local; ")


def test_where_no_mode_keeps_within_the_caps_it_ends_with_4(fettle):
    code, out, _ = fettle("route", "--agent", "local:2:1")
    assert code == 4
    assert out.startswith("nobody is to be asked: no mode fits: solo: it costs at least 2 USD")
    assert out.endswith("\n  raise the cap that is named, or name agents that cost and take less\n")


def test_what_a_router_logged_is_replayed(fettle, tmp_path):
    fettle("promote", "best")
    line = {"observation": [0.5] * 7, "propensity": 0.5, "reward": 1.0, "allowed": ["solo", "swarm"]}
    lines = [{**line, "mode": mode} for mode in line["allowed"]] * 5
    (tmp_path / "o.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = fettle("replay", "o.jsonl", "outputs/router-registry/versions/000001")
    assert code == 0
    # Of the two that each request allowed, a router would take the same one each time: it is in half of the lines.
    assert out.startswith("10 decisions, worth 5 to this policy; 0 lines were none")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("route", "--agent", "a:b"), "a:b is not of the form NAME:USD:SECONDS"),
        (("route", "--agent", "a:1:2:3"), "a:1:2:3 is not of the form NAME:USD:SECONDS"),
        (("route", "--agent", "a:-1"), "agent a costs -1.0"),
        (("route", "--agent", ":1"), ":1 is not of the form NAME:USD:SECONDS, as helper:0.02:4: write it so"),
        (("route", "--agent", ""), "nothing is not of the form NAME:USD:SECONDS"),
        (("route", "--agent", "a", "--feature", "x"), "x is not of the form NAME=NUMBER"),
        (("route", "--agent", "a", "--feature", "=1"), "=1 is not of the form NAME=NUMBER"),
        (("route", "--agent", "a", "--feature", "x=nan"), "x=nan is not of the form NAME=NUMBER"),
        (("route", "--agent", "a", "--feature", "x=1", "--feature", "x=2"), "feature x is given twice: leave one"),
        (("route", "--agent", "a", "exposure=ful"), "did you mean full"),
        (("route", "--agent", "a", "exposure=full", "policy=x"), "which no gate has passed"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence_and_ends_with_2(fettle, arguments, sentence):
    code, _, err = fettle(*arguments)
    assert code == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
