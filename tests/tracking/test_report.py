"""The page at the top of a run's folder."""

import json
import math
import re
import types

import pytest

from fettle.tracking import record_failures, report, write_report
from fettle.types import Failed, Message, Task

TASK = Task((Message("user", "1 + 1 ="),), {"answer": "2"}, "sums")
BEFORE = {"heldout/reward": 0.47, "heldout/reward_low": 0.40, "heldout/reward_high": 0.54}
AFTER = {"heldout/reward": 0.91, "heldout/reward_low": 0.86, "heldout/reward_high": 0.94}


@pytest.fixture
def outcome(folder):
    newest, best = folder.checkpoints / "step-000060", folder.checkpoints / "step-000040"
    return types.SimpleNamespace(
        steps=60, tokens=123_456, seconds=62.0, first=BEFORE, last=AFTER,
        checkpoint=str(newest), best_checkpoint=str(best), interrupted=False,
    )  # fmt: skip


def test_it_says_what_changed_at_what_cost(folder, outcome):
    text = report(folder, outcome)
    assert "Finished after 60 steps." in text
    assert (
        "| held-out reward | **0.470**, 95 % interval 0.400 to 0.540 | **0.910**, 95 % interval 0.860 to 0.940 |"
        in text
    )
    assert "0:01:02 of training, 123,456 tokens, 1,991 tokens a second." in text


def test_losses_have_no_interval(folder, outcome):
    outcome.first, outcome.last = {"heldout/loss": 5.5}, {"heldout/loss": 0.25}
    text = report(folder, outcome)
    assert "| held-out loss | **5.500** | **0.250** |" in text
    assert "fettle eval" not in text


def test_a_run_that_measured_nothing_has_no_table(folder, outcome):
    outcome.first, outcome.last, outcome.seconds = {}, {}, 0.0
    assert "|" not in report(folder, outcome)


def test_it_names_the_checkpoints_and_what_to_do_with_them(folder, outcome):
    text = report(folder, outcome)
    assert "best checkpoint: `checkpoints/step-000040`" in text
    assert "newest checkpoint: `checkpoints/step-000060`" in text
    assert f"fettle eval {folder.path}\nfettle sample {folder.path} " in text
    assert "--resume" not in text


def test_an_interrupted_run_says_how_to_go_on(folder, outcome):
    outcome.interrupted = True
    text = report(folder, outcome)
    assert "Interrupted after 60 steps." in text
    assert f"fettle train --resume {folder.path}\n" in text


def test_an_interrupted_stage_is_gone_on_with_as_a_whole(folder, outcome):
    outcome.interrupted = True
    (folder.path.parent / "config.yaml").write_text("type: pipeline\n")
    assert f"fettle train --resume {folder.path.parent}\n" in report(folder, outcome)


def test_commands_are_as_they_are_typed_here(folder, outcome):
    outcome.interrupted = True
    text = report(folder, outcome, command="./run fettle")
    commands = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert [command.split()[:3] for command in commands] == [
        ["./run", "fettle", v] for v in ("train", "eval", "sample")
    ]


def test_it_says_which_evaluation_is_meant_and_which_was_best(folder, outcome):
    best = {"heldout/reward": 0.95}
    rows = [{"step": 0, **BEFORE}, {"step": 40, **best}, {"step": 45, "loss": 1.0}, {"step": 50, **AFTER}]
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "| | before | best, after step 40 | newest, after step 50 |\n" in report(folder, outcome)
    assert " | **0.950** | **0.910**, " in report(folder, outcome)
    outcome.best_checkpoint = str(folder.checkpoints / "step-000050")
    assert "| | before | newest, after step 50 |\n" in report(folder, outcome)


def test_every_link_leads_somewhere(folder, outcome):
    for path in (folder.curves_path, folder.metrics_path, folder.config_path, folder.provenance_path):
        path.touch()
    for step in (0, 20, 40):
        (folder.transcripts / f"step-{step:06d}.md").touch()
    links = re.findall(r"\]\(([^)]*)\)", report(folder, outcome))
    assert len(links) == 7
    assert all((folder.path / link).exists() for link in links)


def test_nothing_is_promised_that_is_not_there(folder, outcome):
    outcome.checkpoint = outcome.best_checkpoint = ""
    text = report(folder, outcome)
    assert "](" not in text
    assert "checkpoint" not in text


def test_programs_are_told_the_same(folder, outcome):
    outcome.last = {"heldout/reward": math.nan}
    write_report(folder, outcome)
    told = json.loads(folder.summary_path.read_text())
    assert (told["steps"], told["interrupted"], told["first"]) == (60, False, BEFORE)
    assert told["last"] == {"heldout/reward": None}
    assert folder.report_path.read_text() == report(folder, outcome)


def test_it_says_why_the_first_episode_failed(folder, outcome):
    record_failures(folder, 20, "evaluation", [Failed(TASK, "reward x raised: KeyError: 'a`b'"), Failed(TASK, "no")])
    text = report(folder, outcome)
    assert "2 episodes failed, and are in no reward above: [failures.jsonl](failures.jsonl)" in text
    assert "The first, in evaluation at step 20:\n\n`` reward x raised: KeyError: 'a`b' ``" in text


def test_it_warns_where_nothing_could_be_learned(folder, outcome):
    rows = [{"step": step, "reward/mean": 1.0, "advantage/nonzero": 0.0} for step in (1, 2, 3)]
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Warning: nothing can be learned: " in report(folder, outcome)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"policy/kl": 0.25, "policy/kl_sampler": 9.0}, "KL k3 from the reference, in step 60: 0.2500 nats a token."),
        ({"policy/kl_sampler": 0.5}, "sampler KL k3 from what drew the tokens, in step 60: 0.5000 nats a token."),
    ],
)
def test_it_says_how_far_the_policy_came_in_the_last_step(folder, outcome, row, said):
    rows = [{"step": 59, "policy/kl": 7.0}, {"step": 60, **row}, {"step": 60, **AFTER}]
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f"\n\n{said}\n\n" in report(folder, outcome)


def test_a_run_that_ranks_pairs_has_its_accuracy_before_and_after_with_intervals(folder, outcome):
    outcome.first = {"heldout/accuracy": 0.5, "heldout/accuracy_low": 0.25, "heldout/accuracy_high": 0.75}
    outcome.last = {"heldout/accuracy": 0.9, "heldout/accuracy_low": 0.65, "heldout/accuracy_high": 0.98}
    assert (
        "| held-out accuracy | **0.500**, 95 % interval 0.250 to 0.750 | **0.900**, 95 % interval 0.650 to 0.980 |"
        in report(folder, outcome)
    )
