"""A pipeline ends with one table: for people in its report, for programs in its summary."""

import json
import math
import types

import pytest

from fettle.tracking import HACKING, RunFolder, stages_table, write_stages_report


def stage(name, before, after, digest="0123456789abcdef"):
    return types.SimpleNamespace(name=name, steps=1200, seconds=61.4, before=before, after=after, digest=digest)


SFT = stage(
    "warm-up",
    {"heldout/loss": 5.5, "heldout/reward": 0.0},
    {"heldout/loss": 0.25, "heldout/reward": 0.4, "heldout/reward_low": 0.3, "heldout/reward_high": 0.5},
)
JUDGE = stage(
    "judge",
    {"heldout/loss": 0.69, "heldout/accuracy": 0.5},
    {"heldout/loss": 0.1, "heldout/accuracy": 0.975, "heldout/accuracy_low": 0.9, "heldout/accuracy_high": 1.0},
)
PPO = stage(
    "ppo",
    {"heldout/reward": 0.4, "heldout/learned": -1.0},
    {"heldout/reward": 0.8, "heldout/learned": 1.0, "heldout/kl": 0.03125},
)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.at(tmp_path / "three")


def test_each_stage_has_a_line_for_what_was_measured_of_it(folder):
    write_stages_report(folder, [SFT, JUDGE, PPO], interrupted=False)
    whole, no = ("1,200", "0:01:01", "0123456789ab"), ("", "", "")
    assert stages_table(folder)[1:] == [
        ("warm-up", "loss", "5.500", "0.250", "", *whole),
        ("", "true reward", "0.000", "0.400", "0.300 to 0.500", *no),
        ("judge", "accuracy", "0.500", "0.975", "0.900 to 1.000", *whole),
        ("ppo", "true reward", "0.400", "0.800", "", *whole),
        ("", "learned reward", "-1.000", "1.000", "", *no),
        ("", "KL from start, k1", "", "0.031", "", *no),
    ]
    assert "| [judge](judge/report.md) | accuracy | 0.500 | 0.975 | 0.900 to 1.000 |" in folder.report_path.read_text()
    assert "Warning" not in folder.report_path.read_text()


def test_where_nothing_is_learned_a_reward_is_a_reward(folder):
    write_stages_report(folder, [SFT], interrupted=False)
    assert [line[1] for line in stages_table(folder)] == ["held out", "loss", "reward"]
    assert "Learned rewards" not in folder.report_path.read_text()


def test_what_a_learned_reward_has_been_through_is_said_once(folder):
    write_stages_report(folder, [SFT, PPO], interrupted=False)
    assert folder.report_path.read_text().count("after the scale and clip") == 1


def test_a_stage_that_was_interrupted_is_told_as_such(folder):
    write_stages_report(folder, [stage("warm-up", {}, {}, digest=None)], interrupted=True)
    assert stages_table(folder)[1:] == [("warm-up", "", "", "", "", "1,200", "0:01:01", "interrupted")]
    assert json.loads(folder.summary_path.read_text())["interrupted"] is True


def test_what_is_no_number_is_left_out(folder):
    write_stages_report(folder, [stage("warm-up", {}, {"heldout/loss": math.nan})], interrupted=False)
    assert json.loads(folder.summary_path.read_text())["stages"][0]["after"] == {"heldout/loss": None}
    assert stages_table(folder)[1][:2] == ("warm-up", "")


def test_a_stage_that_ended_with_the_alarm_is_pointed_at(folder):
    write_stages_report(folder, [stage("ppo", {}, {**PPO.after, HACKING: 1.0})], interrupted=False)
    assert "Warning: ppo ended with learned and true reward parted: see its report." in folder.report_path.read_text()


def test_a_single_run_has_no_table(folder):
    assert stages_table(folder) == []
