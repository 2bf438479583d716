"""Rollouts drawn at a real server, by its own command: the numbers are those of rollouts drawn here."""

import threading

import numpy as np
import pytest

from fettle.cli import main
from fettle.config import Remote
from fettle.environments import suite
from fettle.environments.remote import wire as protocol
from fettle.errors import AuthenticationError, ConfigError, EnvironmentFault, UnreachableError
from fettle.router.artifacts import RunFolder
from fettle.router.nouns import Seen
from fettle.router.training import train
from fettle.router.wire import modes_in, modes_out, seen_in, seen_out
from fettle.types import Message
from tests.environments.remote.proxy import proxy
from tests.router.routing_server import server

UPDATES = "rllm.trainer.updates=4"


@pytest.fixture(scope="module")
def served():
    with server() as running:
        yield running


def numbers(config, between=lambda row: None):
    """Everything that a run tells and learns; ``between`` is called after each update."""
    rows = []

    def told(row):
        rows.append(dict(row))
        between(row)

    policy = train(config, told=told).policy
    return rows, {name: values.tobytes() for name, values in policy.items()}


@pytest.mark.parametrize("simulator", ["tasks", "legacy"])
def test_the_numbers_are_those_of_rollouts_drawn_here_to_the_bit(small, served, simulator):
    chosen = (UPDATES, f"rllm.simulator.type={simulator}", "rllm.trainer.seed=7")
    assert numbers(small(*chosen, *served.settings)) == numbers(small(*chosen))


def test_a_server_that_dies_in_mid_episode_and_comes_back_changes_no_bit(small):
    with server() as running:
        kill = {2.0: running.again}
        found = numbers(small(UPDATES, *running.settings), lambda row: kill.get(row["update"], lambda: None)())
    assert found == numbers(small(UPDATES))


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_played_twice(small, served):
    with proxy(served.port) as way:

        def lose(row):
            way.losing = True
            threading.Timer(0.5, restore).start()

        def restore():
            way.losing = False
            way.cut()

        address = f"rllm.rollout_service.address={way.address}"
        found = numbers(small("rllm.trainer.updates=2", *served.settings, address), lose)
    assert found == numbers(small("rllm.trainer.updates=2"))


def test_a_run_that_goes_on_there_is_the_uninterrupted_one_here(small, served, tmp_path):
    def folder(name, *overrides):
        kept = ("rllm.experiment.checkpointing.enabled=true", "rllm.experiment.checkpointing.frequency_steps=1")
        place = ("rllm.experiment.enabled=true", f"rllm.experiment.output_dir={tmp_path / name}")
        config = small(*place, *kept, "rllm.experiment.resume=true", *overrides)
        train(config, RunFolder(config, None))
        return (tmp_path / name / "policy_state.npz").read_bytes()

    folder("halves", "rllm.trainer.updates=2", *served.settings)
    assert folder("halves", UPDATES, *served.settings) == folder("whole", UPDATES)


def test_no_server_is_one_sentence(small):
    with server() as running:
        settings = running.settings
    with pytest.raises(UnreachableError, match=r"the server at 127\.0\.0\.1:\d+ cannot be reached") as caught:
        train(small(*settings, "rllm.rollout_service.patience=0.5"))
    assert "\n" not in caught.value.message


def test_a_server_that_stays_away_ends_the_run_with_one_sentence(small):
    with server() as running:
        config = small(UPDATES, *running.settings, "rllm.rollout_service.patience=0.5")
        with pytest.raises(UnreachableError, match="cannot be reached"):
            train(config, told=lambda row: running.kill())


def test_a_token_that_is_missing_or_wrong_is_one_sentence(small, tmp_path):
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text("a" * 32)
    wrong.write_text("b" * 32)
    with server("routing", "--token-file", str(good)) as running:
        for token in ((), (f"rllm.rollout_service.token_file={wrong}",)):
            with pytest.raises(AuthenticationError, match="does not know the token: set token_variable or token_file"):
                train(small(*running.settings, *token))
        token = f"rllm.rollout_service.token_file={good}"
        assert numbers(small(*running.settings, token)) == numbers(small())


def test_another_version_is_one_sentence(small, served, monkeypatch):
    monkeypatch.setattr(protocol, "PROTOCOL", "2")
    # A patience of its own, so that it is another connection: what a call brings is made with that.
    with pytest.raises(EnvironmentFault, match="speaks protocol 1, and not 2: install the same version"):
        train(small(*served.settings, "rllm.rollout_service.patience=3"))


def test_a_server_of_other_environments_is_one_sentence(small):
    with (
        server("arithmetic") as running,
        pytest.raises(ConfigError, match="serves arithmetic, and not routing: start one by fettle environments serve"),
    ):
        train(small(*running.settings))


def test_the_server_says_what_it_serves(served):
    assert served.said == f"fettle: serving routing at 127.0.0.1:{served.port}"


async def test_it_is_an_environment_like_any_other(served):
    made = suite(Remote(address=f"127.0.0.1:{served.port}", environment="routing", settings={"episode_length": 2}))
    environment = made.environment()
    first = await environment.reset(made.training_task(3))
    assert '"observations"' in first.messages[0].content
    steps = [await environment.step(Message("assistant", mode)) for mode in ("solo", modes_out(np.zeros(32, int)))]
    assert [step.truncated for step in steps] == [False, True]
    assert all(sum(step.components.values()) == pytest.approx(step.reward) for step in steps)
    assert len({task.id for task in made.heldout_tasks()} | {made.training_task(0).id}) == 17


def test_what_crosses_the_wire_comes_back_to_the_bit():
    rng = np.random.default_rng(0)
    seen = Seen(rng.random((5, 3)).astype(np.float32), np.ones(5, np.float32))
    terms = {name: rng.normal(size=5) for name in ("throughput", "reliability", "latency", "collaboration_cost")}
    terms["violation"] = np.full(5, 1 / 3)
    back, told = seen_in(seen_out(seen, terms), count=5, features=3)
    assert back.observations.tobytes() == seen.observations.tobytes()
    assert all(told[name].tobytes() == values.tobytes() for name, values in terms.items())
    assert modes_in(modes_out(np.array([0, 4, 2])), count=3).tolist() == [0, 4, 2]


@pytest.mark.parametrize("text", ["", "alone", "[0]", '{"modes": [0]}', '{"modes": [0, 5]}', '{"modes": [0.0, 1]}'])
def test_what_is_no_decision_is_refused(text):
    with pytest.raises(EnvironmentFault, match="a decision is one of solo"):
        modes_in(text, count=2)


@pytest.mark.parametrize("text", ["", "[]", '{"observations": [[1]], "planning": [1]}', '{"planning": 0}'])
def test_what_is_no_answer_is_refused(text):
    with pytest.raises(EnvironmentFault, match="the rollout service answered with"):
        seen_in(text, count=2, features=1)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("address=http://rollouts.example.org:8080", "another machine's, in the clear: let it begin with https://"),
        ("address=nowhere", "address"),
        ("address=http://localhost:99999", "ports go from 1 to 65535"),
        ("address=https://rollouts.example.org:0", "ports go from 1 to 65535"),
        ("tls.authorities=ca.pem", "tls is set, and address is http://localhost:8080, in the clear: let it begin"),
        ("token_file=a rllm.rollout_service.token_variable=B", "two places for one token"),
    ],
)
def test_an_address_that_cannot_be_is_refused(small, override, sentence):
    with pytest.raises(ConfigError, match=sentence) as told:
        small(*f"rllm.rollout_service.{override}".split())
    assert "\n" not in told.value.message


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name what to serve, such as arithmetic; there are "),
        (("routin",), "there is no type of environments 'routin', only "),
        (("--config", "nothing.yaml"), "nothing is to be served: name some of "),
    ],
)
def test_to_serve_nothing_or_what_is_not_there_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    (tmp_path / "nothing.yaml").write_text("port: 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fettle", "environments", "serve", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in told
    assert "routing" in told
