"""A round without a person: what the gate lets through comes into use, what does worse later goes, all is told."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fettle.cli import main
from fettle.config import load_as
from fettle.config.router import RouterConfig
from fettle.config.routing import PromotionGate
from fettle.errors import BusyError, ConfigError
from fettle.router.audit import entry, read_audit
from fettle.router.autopilot import autopilot, switches_of
from fettle.router.files import POLICY
from fettle.router.registry import folder_of, in_use, keep, point
from tests.router.conftest import LEARNING, SMALL, SWITCHED_ON

FLOWN = (
    *LEARNING,
    "rllm.autopilot.enabled=true",
    "rllm.experiment.enabled=true",
    "rllm.trainer.updates=24",
    "rllm.evaluation.episodes=64",
)
GATE = PromotionGate(seeds=4, episodes=128)
FOR_REAL = "rllm.autopilot.dry_run=false"
HURRIED = "rllm.reward_weights.latency=20"
"""A world in which working alone is best, whatever was learned in the other."""


def settings(folder, *overrides):
    places = (f"rllm.autopilot.registry={folder / 'registry'}", f"rllm.experiment.output_dir={folder / 'rounds'}")
    return load_as(RouterConfig, None, [*SMALL, *FLOWN, *places, *overrides])


@pytest.fixture
def flown(tmp_path):
    """``flown("rllm...")``: what a round did, and what the audit log then says."""

    def round_(*overrides):
        steps = autopilot(settings(tmp_path, *overrides), gate=GATE)
        audit = read_audit(tmp_path / "registry")
        assert audit.broken == ()
        assert all(each["simulated"] for each in audit.entries)
        return [step.what for step in steps], audit.entries, in_use(tmp_path / "registry")

    return round_


@pytest.fixture(scope="module")
def one_round(tmp_path_factory):
    """What a first round leaves, which promoted; and the steps it told of."""
    folder = tmp_path_factory.mktemp("first")
    return folder, [step.what for step in autopilot(settings(folder, FOR_REAL), gate=GATE)]


@pytest.fixture
def after_one(one_round, flown, tmp_path):
    """``flown``, for the rounds after that one."""
    shutil.copytree(one_round[0], tmp_path, dirs_exist_ok=True)
    return flown


def test_by_default_it_says_what_it_would_do_and_does_nothing(flown, tmp_path):
    steps, entries, used = flown()
    assert steps == ["retrained", "would_promote"]
    assert [(each["event"], each["who"], each["dry_run"]) for each in entries] == [
        ("begun", "autopilot", True),
        ("retrained", "autopilot", True),
        ("would_promote", "autopilot", True),
    ]
    assert used is None
    assert json.loads((tmp_path / "rounds" / "round-0001" / "evaluation.json").read_text())["simulated"] is True


def test_a_policy_that_beats_what_is_in_use_is_promoted_and_one_that_does_not_is_not(one_round, after_one):
    assert one_round[1] == ["retrained", "promoted"]
    steps, entries, used = after_one(FOR_REAL, "rllm.trainer.updates=1")
    assert steps == ["reviewed", "retrained", "not_promoted"]
    assert used[0] == 1
    [review] = [each for each in entries if each["event"] == "reviewed"]
    assert review["comparison"]["low"] > 0
    assert "that is not above 0" in entries[-1]["why"]


def test_what_does_worse_on_a_later_evaluation_goes(after_one):
    steps, _, used = after_one(HURRIED, "rllm.trainer.updates=1")
    assert steps[0] == "would_roll_back"
    assert used[0] == 1
    steps, entries, used = after_one(FOR_REAL, HURRIED, "rllm.trainer.updates=1")
    assert steps == ["rolled_back", "retrained", "not_promoted"]
    assert used is None
    [back] = [each for each in entries if each["event"] == "rolled_back"]
    assert back["who"] == "autopilot"
    assert "over solo alone" in back["why"]


def test_no_two_rounds_are_alike(flown, tmp_path):
    for seed in (0, 1, 0):
        flown("rllm.trainer.updates=1", f"rllm.trainer.seed={seed}")
    seeds = {json.loads(path.read_text())["seed"] for path in (tmp_path / "rounds").glob("round-*/metadata.json")}
    assert len(seeds) == 3


def test_rounds_that_begin_at_once_have_numbers_and_folders_of_their_own(tmp_path):
    """Two at one registry, where one of them may find it locked; and one of another registry, at the same folder."""

    def one(registry):
        place = f"rllm.autopilot.registry={tmp_path / registry}"
        try:
            autopilot(settings(tmp_path, place, "rllm.trainer.updates=1"), gate=GATE)
        except BusyError:
            return one(registry)
        return None

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(one, ("a", "a", "b")))
    begun = [each for name in ("a", "b") for each in read_audit(tmp_path / name).entries if each["event"] == "begun"]
    assert len({each["why"] for each in begun}) == 3
    of_a = [each["round"] for each in read_audit(tmp_path / "a").entries if each["event"] == "begun"]
    assert len(set(of_a)) == 2
    assert {path.name for path in (tmp_path / "rounds").iterdir()} == {f"round-000{at}" for at in (1, 2, 3)}


def test_a_version_that_came_into_use_meanwhile_is_not_rolled_back_for_another(after_one, tmp_path):
    """While it was looked at, somebody promoted: what was seen is no word on that one."""
    registry = tmp_path / "registry"
    log, waiting = registry / "audit.jsonl", [True]

    def promote_meanwhile(event, arguments):
        """Once the second round has begun and writes what it has seen."""
        if waiting and event == "open" and str(arguments[0]) == str(log):
            waiting.pop()
            if '"round": 2' in log.read_text():
                files = {path.name: path.read_bytes() for path in folder_of(registry, 1).glob("[!p]*.*")}
                files[POLICY] = (folder_of(registry, 1) / POLICY).read_bytes()
                point(registry, entry("promoted", who="me", why="", version=2), keep(registry, files, {"before": 1}))
            else:
                waiting.append(True)

    sys.addaudithook(promote_meanwhile)
    steps, entries, used = after_one(FOR_REAL, HURRIED, "rllm.trainer.updates=1")
    assert not waiting
    assert steps[0] == "not_rolled_back"
    assert used[0] == 2
    [told] = [each for each in entries if each["event"] == "not_rolled_back"]
    assert "version 1 is not in use any more, but 2" in told["why"]


def test_a_run_that_a_breaker_ends_is_not_promoted(flown):
    steps, entries, used = flown(FOR_REAL, "rllm.breakers.min_entropy=1.7")
    assert steps == ["not_promoted"]
    assert "entropy fell" in entries[-1]["why"]
    assert used is None


def test_a_policy_of_other_features_is_left_alone(after_one):
    steps, entries, used = after_one("rllm.simulator.type=legacy", "rllm.trainer.updates=1")
    assert steps[0] == "not_reviewed"
    assert "other features" in entries[-3]["why"]
    assert used[0] == 1


@pytest.mark.parametrize("switch", ["enabled", "trainer.enabled", "autopilot.enabled", "experiment.enabled"])
def test_it_takes_four_switches(small, switch):
    with pytest.raises(ConfigError, match=rf"the autopilot is switched off by rllm\.{switch}: set them to true"):
        autopilot(small(*FLOWN, f"rllm.{switch}=false"))


def test_the_verb_says_what_keeps_it_off_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fettle", "router", "autopilot"])
    with pytest.raises(SystemExit) as end:
        main()
    switches = switches_of(RouterConfig())
    assert end.value.code == 3
    assert len(switches) == 4
    assert capsys.readouterr().err == f"fettle: nothing was done: {', '.join(switches)} are false\n"
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_a_breaker_ends_is_told_of_as_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    on = [*SWITCHED_ON, *FLOWN, "rllm.breakers.min_entropy=1.7"]
    log = ["rllm.observability.enabled=true", "rllm.observability.logging.enabled=true"]
    monkeypatch.setattr("sys.argv", ["fettle", "router", "autopilot", *on, *log])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "not promoted: update 1 was undone: entropy fell to" in capsys.readouterr().out
    [line] = [json.loads(line) for line in (tmp_path / "logs" / "rllm.log").read_text().splitlines()]
    assert (line["level"], line["event"]) == ("error", "stopped")


def test_the_verb_flies_a_round(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ("rllm.trainer.updates=2", "rllm.trainer.episode_length=2")
    on = [*SWITCHED_ON, *FLOWN, *short]
    monkeypatch.setattr("sys.argv", ["fettle", "router", "autopilot", *on])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.startswith("retrained: ")
    assert "a dry run: nothing was promoted or rolled back" in out
