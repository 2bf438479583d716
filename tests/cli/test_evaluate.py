"""``fettle eval`` and ``fettle sample``: what a run left, scored again and talked to."""

import json

import pytest

from fettle.rollouts.trajectories import recorded
from tests.service.served import serving

from .conftest import furnished, trained, typed


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A finished run that trained adapters."""
    desk = furnished(tmp_path_factory.mktemp("adapters"))
    return trained("tiny.yaml", desk, "policy.lora={rank: 2}", "steps=4", "optimizer.learning_rate=0.1")


def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def measured(row: dict) -> dict:
    """Without alarms, which are over several evaluations."""
    return {name: value for name, value in row.items() if not name.startswith("alarm/")}


def test_a_run_scores_as_it_did_at_its_end(run):
    """The draws are keyed by task, so the same weights earn the same to the last bit."""
    done = typed("eval", run.folder, "--json", into=run.desk)
    assert done.code == 0, done.err
    assert json.loads(done.out) == measured(summary(run.folder)["last"])


def test_adapters_score_as_they_did_at_their_end(adapters):
    asked = [summary(adapters.folder)["checkpoint"], "--recipe", adapters.folder / "config.yaml"]
    done = typed("eval", *asked, "--json", into=adapters.desk)
    assert done.code == 0, done.err
    assert json.loads(done.out)["heldout/reward"] == pytest.approx(summary(adapters.folder)["last"]["heldout/reward"])


def test_a_model_scores_as_the_run_did_before_its_first_step(run):
    model = run.folder / "model"
    done = typed("eval", model, "--recipe", "tiny.yaml", "--json", into=run.desk)
    assert done.code == 0, done.err
    assert json.loads(done.out) == measured(summary(run.folder)["first"])


def test_people_read_the_score_with_its_interval(run):
    last = summary(run.folder)["last"]
    interval = f"{last['heldout/reward_low']:.3f} to {last['heldout/reward_high']:.3f}"
    done = typed("eval", run.folder, into=run.desk)
    first, second = done.out.splitlines()
    assert first == f"reward {last['heldout/reward']:.3f} on 6 held-out tasks, 95 % interval {interval}"
    assert second.startswith(f"  {last['heldout/tokens_mean']:.1f} tokens a reply, distinct-1 0.")


def test_fewer_tasks_may_be_asked_for(run):
    done = typed("eval", run.folder, "evaluation.tasks=2", "--json", into=run.desk)
    assert json.loads(done.out)["heldout/tasks"] == 2


def test_a_pipeline_is_scored_by_its_last_stage(pipeline):
    done = typed("eval", pipeline.folder, "--json", into=pipeline.desk)
    assert done.code == 0, done.err
    assert json.loads(done.out)["heldout/tasks"] == 6


def test_a_model_alone_names_no_tasks(run):
    done = typed("eval", run.folder / "model", into=run.desk)
    assert done.code == 2
    assert (
        done.complaint == f"{run.folder / 'model'} is no run folder, so it names no tasks: "
        "say which with --recipe RECIPE or --environment NAME"
    )


def test_a_supervised_run_has_no_tasks(pipeline):
    done = typed("eval", pipeline.folder / "warm-up", into=pipeline.desk)
    assert done.code == 2
    assert "ends with supervised learning, which has no tasks to score: give --recipe RECIPE" in done.complaint


SUMS = ("--environment", "arithmetic", "digits=1", "heldout=12", "--tasks", 4, "--max-tokens", 6)


def test_a_model_is_scored_on_any_environment_by_its_name(run):
    done = typed("eval", run.folder / "model", *SUMS, "--samples", 3, into=run.desk)
    assert done.code == 0, done.err
    first, second, *table = done.out.splitlines()
    assert first.startswith("reward 0.")
    assert " on 4 held-out tasks, 95 % interval 0.000 to 0." in first
    assert "tokens a reply" in second
    assert table[0].split() == ["measure", "mean", "95", "%", "interval"]
    assert [line.split()[0] for line in table[1:]] == ["reward", "pass@1", "pass@2", "pass@3"]
    assert all(" to " in line for line in table[1:])


def test_the_numbers_are_told_to_programs_with_their_intervals(run):
    done = typed("eval", run.folder, *SUMS, "--samples", 2, "--temperature", 0, "--json", into=run.desk)
    told = json.loads(done.out)
    assert told["heldout/tasks"] == 4
    assert told["heldout/pass@1"] == told["heldout/pass@2"]  # the likeliest reply is the same each time
    for name in ("heldout/reward", "heldout/pass@1", "heldout/pass@2"):
        assert told[f"{name}_low"] <= told[name] <= told[f"{name}_high"]


def test_a_seed_draws_others(run):
    def lengths(*options) -> float:
        done = typed("eval", run.folder, *SUMS, "--json", *options, into=run.desk)
        return json.loads(done.out)["heldout/distinct_2"]

    assert lengths("--seed", 1) == lengths("--seed", 1) != lengths("--seed", 2)


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("service") / "state", str(run.folder / "model")) as found:
        yield found


def test_an_endpoint_is_scored_by_messages_alone(run, served, monkeypatch):
    """Our own server over a real socket, by the same tasks as the model in its folder."""
    monkeypatch.setenv("ITS_KEY", served.key)
    there = ("--endpoint", f"{served.url}/v1", "--key-env", "ITS_KEY")
    done = typed("eval", "tiny", *there, *SUMS, "--samples", 2, "--json", into=run.desk)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["heldout/tasks"], told["heldout/failed"]) == (4, 0)
    assert told.keys() >= {"heldout/reward_low", "heldout/pass@2_high"}
    assert "heldout/tokens_mean" not in told
    collected = typed(
        "collect", "arithmetic", "digits=1", "heldout=12", "--model", "tiny", *there, "--max-tokens", 6, "--tasks", 3,
        "--out", "theirs.jsonl", into=run.desk,
    )  # fmt: skip
    assert collected.code == 0, collected.err
    for each in recorded(run.desk / "theirs.jsonl"):
        assert each.trajectory.tokens == []
        assert [message.role for message in each.trajectory.messages] == ["system", "user", "assistant"]


def test_an_endpoint_that_refuses_is_told_in_its_own_words(run, served, monkeypatch):
    done = typed("eval", "tiny", "--endpoint", f"{served.url}/v1", *SUMS, into=run.desk)
    assert done.code == 1
    assert "/v1/chat/completions answered 401: " in done.complaint
    monkeypatch.setenv("ITS_KEY", served.key)
    there = ("--endpoint", f"{served.url}/v1", "--key-env", "ITS_KEY")
    done = typed("eval", "tinier", *there, *SUMS, into=run.desk)
    assert done.code == 1
    assert "answered 404: " in done.complaint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--environment", "arithmatic"], "; did you mean arithmetic?"),
        (["--environment", "tiny.yaml"], "--environment is tiny.yaml, a file: give it as --recipe"),
        (["--environment", "math", "--recipe", "tiny.yaml"], "--recipe and --environment both say which tasks"),
        (
            ["--environment", "arithmetic", "digitz=1"],
            "argument digitz=1: unknown key 'digitz'; did you mean 'digits'?",
        ),
        (["--environment", "arithmetic", "--tasks", "500"], "environments.0.heldout keeps 200 tasks"),
        ([*SUMS, "--endpoint", "localhost"], "'localhost' is no address of an endpoint"),
        ([*SUMS, "--endpoint", "http://127.0.0.1:9", "--key-env", "NO_SUCH"], "there is no such environment variable"),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_asked_is_told(run, arguments, says):
    done = typed("eval", run.folder, *arguments, into=run.desk)
    assert done.code == 2
    assert says in done.complaint


def test_a_run_without_a_checkpoint_is_told(run, desk):
    (desk / "begun").mkdir()
    (desk / "begun" / "config.yaml").write_text((run.folder / "config.yaml").read_text())
    done = typed("eval", "begun", into=desk)
    assert done.code == 1
    assert done.complaint == "the run in begun has no checkpoint yet: go on with it by fettle train --resume begun"


def replies(run, *options) -> list[str]:
    done = typed("sample", run.folder, "What is 1 and 2?", "--max-tokens", 8, *options, into=run.desk)
    assert done.code == 0, done.err
    return done.out.removesuffix("\n").split("\n---\n")


def test_replies_repeat_by_their_seed(run):
    first = replies(run, "-n", 2, "--seed", 3)
    assert len(first) == 2
    assert first[0] != first[1]
    assert replies(run, "-n", 2, "--seed", 3) == first
    assert replies(run, "-n", 2, "--seed", 4) != first
    assert replies(run, "--seed", 3) == first[:1]


def test_the_likeliest_reply_is_one(run):
    assert len(set(replies(run, "-n", 3, "--temperature", 0))) == 1


def test_a_run_is_sampled_under_the_system_message_it_was_trained_with(run, desk):
    with_system = trained("tiny.yaml", desk, "steps=1", "environments.0.system=Be brief.")
    assert replies(with_system) == replies(with_system, "--system", "Be brief.")
    assert replies(with_system) != replies(with_system, "--system", "")


def test_adapters_find_their_base_from_anywhere(adapters, tmp_path):
    done = typed("sample", adapters.folder, "hello", "--max-tokens", 4, into=tmp_path)
    assert done.code == 0, done.err


def test_stages_of_a_pipeline_are_sampled_one_by_one_or_by_the_last(pipeline):
    for folder in (pipeline.folder, pipeline.folder / "warm-up", pipeline.folder / "grpo"):
        assert typed("sample", folder, "1 + 2 =", "--max-tokens", 4, into=pipeline.desk).code == 0


def test_nothing_to_draw_from_is_refused(run):
    done = typed("sample", run.folder, "hello", "--top-p", 0, into=run.desk)
    assert done.code == 2
    assert "--top-p is 0" in done.complaint


def test_no_such_model(fettle):
    done = fettle("sample", "./nowhere", "hello")
    assert done.code == 1
    assert "nowhere" in done.complaint
