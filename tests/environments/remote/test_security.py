"""Who gets in: tokens, certificates, loopback; and that answers never get out."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fettle.config import Arithmetic, EnvironmentServerConfig, Remote
from fettle.config.load import load_as
from fettle.config.remote import loopback, tokens
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.errors import AuthenticationError, ConfigError, UnreachableError
from fettle.types import Message
from tests.environments.remote.certificates import Authority
from tests.environments.remote.conftest import serving
from tests.environments.remote.counting import BROKEN, SECRET
from tests.environments.remote.raw import Raw, refused

TOKEN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
ONE = "session-number-one"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# of this week and the last\n{OTHER}\n{TOKEN}\n")
    return str(path)


async def test_with_a_token_a_client_gets_in_and_without_it_none(token_file, monkeypatch, tmp_path):
    monkeypatch.setenv("A_TOKEN", TOKEN)
    with serving(token_file=token_file) as served:
        suite = served.suite(token_variable="A_TOKEN")
        environment = suite.environment()
        await environment.reset(suite.training_task(0))
        assert (await environment.step(Message("assistant", "abc"))).reward > 1
        await environment.close()
        with pytest.raises(AuthenticationError, match="does not know the token: set token_variable or token_file"):
            served.suite()
        (tmp_path / "wrong").write_text("x" * 32)
        with pytest.raises(AuthenticationError):
            served.suite(token_file=str(tmp_path / "wrong"))


@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0", f"basic {TOKEN}", "Bearer é"]
)
def test_every_call_is_closed_to_who_has_no_token_but_health(token_file, given):
    with serving(token_file=token_file, reflection=True) as served:
        metadata = [("authorization", given)] if given.isascii() else [("authorization-bin", given.encode())]
        raw = Raw(served.address, metadata=metadata)
        for method, request in (("ListEnvironments", pb.ListEnvironmentsRequest()), ("Close", pb.CloseRequest())):
            with pytest.raises(grpc.RpcError) as error:
                getattr(raw, method)(request)
            assert refused(error.value)[0] == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as error:
            list(raw.StreamStep(iter([pb.StreamStepRequest()])))
        assert refused(error.value)[0] == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            ProtoReflectionDescriptorDatabase(raw.channel).get_services()
        health = health_pb2_grpc.HealthStub(raw.channel)
        assert health.Check(health_pb2.HealthCheckRequest(service=wire.ENVIRONMENTS)).status == 1


def test_reflection_is_there_only_where_it_was_asked_for():
    with serving(reflection=True) as served:
        assert wire.ENVIRONMENTS in ProtoReflectionDescriptorDatabase(Raw(served.address).channel).get_services()
    with serving() as served, pytest.raises(grpc.RpcError) as error:
        ProtoReflectionDescriptorDatabase(Raw(served.address).channel).get_services()
    assert refused(error.value)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_who_speaks_another_version_of_the_protocol_is_told_so(served):
    raw = Raw(served.address, metadata=[(wire.PROTOCOL_KEY, "2")])
    with pytest.raises(grpc.RpcError, match="this server speaks protocol 1, and not 2: install the same version"):
        raw.ListEnvironments(pb.ListEnvironmentsRequest())
    later = raw.channel.unary_unary("/fettle.environment.v2.EnvironmentService/Reset")
    with pytest.raises(grpc.RpcError) as error:
        later(b"", timeout=30)
    assert refused(error.value)[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_mutual_tls_lets_in_who_shows_a_certificate_and_trusts_only_its_own_authority(tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.signed("server")
    mine, my_key = ours.signed("me")
    with serving(tls_cert=certificate, tls_key=key, client_authorities=str(ours.path)) as served:
        known = {"authorities": str(ours.path), "certificate": mine, "key": my_key}
        suite = served.suite(tls=known)
        environment = suite.environment()
        await environment.reset(suite.training_task(0))
        assert (await environment.step(Message("assistant", "abc"))).reward > 1
        await environment.close()
        stranger, strange_key = theirs.signed("stranger")
        for tls in (
            {"authorities": str(ours.path)},
            {**known, "certificate": stranger, "key": strange_key},
            {**known, "authorities": str(theirs.path)},
            None,
        ):
            with pytest.raises(UnreachableError, match="cannot be reached"):
                served.suite(tls=tls, patience=0.2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"host": "0.0.0.0"}, "which others can reach: set tls_cert and tls_key, and a token_file"),
        ({"host": "10.0.0.1", "token_file": "t"}, "which others can reach"),
        ({"host": "10.0.0.2", "tls_cert": "c", "tls_key": "k"}, "which others can reach"),
        ({"tls_cert": "c"}, "tls_cert and tls_key belong together"),
        ({"client_authorities": "a"}, "client_authorities needs TLS"),
        ({"token_file": "t", "token_variable": "T"}, "two places for tokens"),
        ({"max_sessions": 0}, "max_sessions"),
    ],
)
def test_a_server_that_others_can_reach_needs_tls_and_a_token(settings, sentence):
    overrides = ["environments.arithmetic.type=arithmetic", *(f"{name}={value}" for name, value in settings.items())]
    with pytest.raises(ConfigError, match=sentence):
        load_as(EnvironmentServerConfig, None, overrides)


def test_loopback_is_served_in_the_clear_and_others_with_all_there_is():
    assert EnvironmentServerConfig(environments={"a": Arithmetic()}).host == "127.0.0.1"
    EnvironmentServerConfig(environments={"a": Arithmetic()}, host="0.0.0.0", tls_cert="c", tls_key="k", token_file="t")
    assert [loopback(host) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1")] == [True] * 4
    assert [loopback(host) for host in ("127.0.0.1.example.org", "localhost.example.org", "0.0.0.0")] == [False] * 3


def test_a_client_sends_nothing_in_the_clear_to_another_machine():
    with pytest.raises(ValueError, match="another machine's, and tls is not set"):
        Remote(address="10.0.0.1:50051", environment="x")
    with pytest.raises(ValueError, match="settings holds heldout, which has a place of its own"):
        Remote(address="127.0.0.1:1", environment="x", settings={"heldout": 5})
    with pytest.raises(ValueError, match="address"):
        Remote(address="127.0.0.1", environment="x")


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "é" * 40, f"{TOKEN}\nshort"])
def test_a_token_that_can_be_guessed_or_sent_wrongly_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError, match=r"holds (no|a) token"):
        tokens(variable=None, file=str(tmp_path / "token"))


def test_answers_of_tasks_never_leave_the_server(served):
    raw = Raw(served.address)
    chosen = pb.Chosen(environment_id="counting")
    asked = [pb.ListTasksRequest(chosen=chosen, split=split, count=20) for split in (1, 2)]
    said = [
        *map(raw.ListTasks, asked),
        raw.begin(ONE),
        raw.say(ONE, 1, "a"),
        raw.ListEnvironments(pb.ListEnvironmentsRequest()),
    ]
    assert all(SECRET.encode() not in each.SerializeToString() for each in said)
    suite = served.suite()
    for task in (suite.training_task(3), suite.heldout_tasks()[3]):
        assert set(task.data) == {"split", "index", "prompt_digest"}


def test_what_breaks_on_the_way_tells_no_answer_either(served):
    raw = Raw(served.address)
    chosen = pb.Chosen(environment_id="counting")
    for index in (BROKEN, 2**64 - 1):
        with pytest.raises(grpc.RpcError) as error:
            raw.ListTasks(pb.ListTasksRequest(chosen=chosen, split=pb.SPLIT_TRAINING, first=index, count=2))
        code, details, _ = refused(error.value)
        assert code == grpc.StatusCode.ABORTED
        assert "the call failed with ValueError; the server's log tells more" in details
    with pytest.raises(grpc.RpcError, match="the environment failed with ValueError"):
        raw.begin(ONE, BROKEN)
    assert raw.begin("session-number-two", 1).observation.messages


@pytest.mark.parametrize(
    ("environment", "settings", "sentence"),
    [
        ("arithmetic", {"digits": 0}, "arithmetic: setting digits: Input should be greater than or equal to 1"),
        ("arithmetic", {"digits": "2"}, "arithmetic: setting digits: Input should be a valid integer"),
        ("arithmetic", {"digit": 2}, "has no setting 'digit' that a client may choose, .*; did you mean digits?"),
        ("arithmetic", {"type": "jsonl"}, "has no setting 'type' that a client may choose"),
        ("arithmetic", 10**9, "this server holds out 10000 tasks at most"),
        ("questions", {"path": "/etc/passwd"}, "has no setting 'path' that a client may choose"),
        ("questions", {"reward": "os:system"}, "has no setting 'reward' that a client may choose"),
        ("aritmetic", {}, "no environment 'aritmetic' here, .*; did you mean arithmetic?"),
    ],
)
def test_a_client_chooses_numbers_and_never_a_path_or_a_module(tmp_path, environment, settings, sentence):
    (tmp_path / "q.jsonl").write_text("\n".join(f'{{"prompt": "{n} + 1 =", "answer": {n + 1}}}' for n in range(40)))
    questions = {"type": "jsonl", "path": str(tmp_path / "q.jsonl"), "heldout": 10}
    with serving(more={"questions": questions}) as served, pytest.raises(ConfigError, match=sentence):
        served.suite(environment, **({"heldout": settings} if isinstance(settings, int) else {"settings": settings}))


def test_what_a_client_chooses_is_laid_over_the_servers_settings(served):
    there = served.suite("arithmetic", settings={"digits": 3}, seed=7, heldout=5, system="Add.")
    assert len(there.heldout_tasks()) == 5
    system, question = there.training_task(0).prompt
    assert system.content == "Add."
    assert len(question.content.partition(": ")[2].split()[0]) == 3
    assert there.training_task(0) != served.suite("arithmetic", settings={"digits": 3}, heldout=5).training_task(0)
