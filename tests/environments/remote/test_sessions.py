"""A session each, answers that stay the same, leases that end, room that has an end."""

import asyncio
import threading
import time

import grpc
import pytest

from fettle.environments.remote import environment_pb2 as pb
from fettle.errors import EnvironmentFault
from fettle.types import Message
from tests.environments.remote.conftest import serving
from tests.environments.remote.counting import CALLS, SECRET, CountingSuite
from tests.environments.remote.raw import Raw, refused, reset, step

ONE, TWO = "session-number-one", "session-number-two"


async def test_two_clients_interleaved_for_1000_steps_equal_two_local_instances(served):
    local = CountingSuite(turns=1000)
    suites = [served.suite(settings={"turns": 1000}) for _ in range(2)]
    assert suites[0].training_task(3).prompt == local.training_task(3).prompt
    remote = [suite.environment() for suite in suites]
    here = [local.environment() for _ in remote]
    for place, (theirs, ours) in enumerate(zip(remote, here, strict=True)):
        first = await theirs.reset(suites[place].training_task(place))
        assert first == await ours.reset(local.training_task(place))
    for turn in range(1000):
        for place in (0, 1) if turn % 3 else (1, 0):
            action = Message("assistant", f"{place} " * (turn % 11)) if turn % 7 else CALLS
            theirs, ours = await remote[place].step(action), await here[place].step(action)
            assert theirs == ours
            assert list(theirs.components) == list(ours.components)
    assert theirs.terminated
    for each in remote:
        await each.close()


async def test_sessions_are_released_when_episodes_end_and_when_they_are_closed(served):
    suite = served.suite(settings={"turns": 2})
    played, left = suite.environment(), suite.environment()
    for environment in (played, left):
        await environment.reset(suite.training_task(0))
    assert served.live == 2
    assert not (await played.step(Message("assistant", "one"))).terminated
    assert (await played.step(Message("assistant", "two"))).terminated
    await eventually(lambda: served.live == 1)
    await left.close()
    await left.close()
    await eventually(lambda: served.live == 0 and len(served.counting[-1].closed) == 2)
    await played.close()
    with pytest.raises(EnvironmentFault, match="the episode was over after turn 2"):
        await played_again(suite)


def test_a_turn_that_is_asked_for_again_is_answered_alike_and_played_once(served):
    raw = Raw(served.address)
    assert raw.begin(ONE) == raw.begin(ONE)
    first = raw.say(ONE, 1, "four")
    assert [raw.say(ONE, 1, "four") for _ in range(3)] == [first] * 3
    second = raw.say(ONE, 2, "four")
    assert second.measured[0].value == pytest.approx(first.measured[0].value + 4 / 3)
    assert served.live == 1


@pytest.mark.parametrize(
    ("call", "status", "sentence"),
    [
        (lambda raw: raw.say(ONE, 1, "another"), "FAILED_PRECONDITION", "turn 1 was played with another content"),
        (lambda raw: raw.say(ONE, 3, "four"), "FAILED_PRECONDITION", "turn 3 does not follow turn 1"),
        (lambda raw: raw.say(ONE, 0, "four"), "FAILED_PRECONDITION", "turn 0 does not follow turn 1"),
        (lambda raw: raw.begin(ONE), "FAILED_PRECONDITION", "the session has begun, and with something else"),
        (lambda raw: raw.say(TWO, 1, "four"), "NOT_FOUND", "there is no such session: its lease of 600 s has ended"),
        (lambda raw: raw.begin("short"), "INVALID_ARGUMENT", "session_id must be 16 to 64 letters"),
        (lambda raw: raw.Reset(pb.ResetRequest(session_id=TWO)), "NOT_FOUND", "there is no environment '' here"),
        (lambda raw: raw.Reset(reset(TWO, environment="countign")), "NOT_FOUND", "did you mean counting?"),
        (lambda raw: raw.Step(pb.StepRequest(session_id=ONE, turn=2)), "INVALID_ARGUMENT", "a message has the role ''"),
        (
            lambda raw: raw.Reset(
                pb.ResetRequest(session_id=TWO, chosen=pb.Chosen(environment_id="counting", settings=b"["))
            ),
            "INVALID_ARGUMENT",
            "settings are no JSON",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence_and_the_session_goes_on(served, call, status, sentence):
    raw = Raw(served.address)
    raw.begin(ONE)
    raw.say(ONE, 1, "four")
    with pytest.raises(grpc.RpcError) as error:
        call(raw)
    code, details, _ = refused(error.value)
    assert (code.name, sentence in details) == (status, True), details
    assert not raw.say(ONE, 2, "on").terminated


def test_a_batch_of_steps_has_an_answer_or_a_fault_for_each(served):
    raw = Raw(served.address)
    raw.begin(ONE), raw.begin(TWO, 1)
    asked = [step(ONE, 1, "a"), step("session-that-never-was", 1, "b"), step(TWO, 1, "ccc")]
    first, lost, last = raw.BatchStep(pb.BatchStepRequest(requests=asked)).outcomes
    assert lost.fault.code == pb.FAULT_CODE_SESSION
    assert [first.response.reward, last.response.reward] == pytest.approx([1 / 3 + 0.1, 1.1])
    with pytest.raises(grpc.RpcError) as error:
        raw.BatchStep(pb.BatchStepRequest(requests=[asked[0]] * 1025))
    assert refused(error.value)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stream_carries_many_sessions_and_answers_each_call_by_its_number(served):
    raw = Raw(served.address)
    names = [f"session-of-stream-{number}" for number in range(20)]
    frames = [pb.StreamStepRequest(call=number, reset=reset(name, number)) for number, name in enumerate(names)]
    begun = {each.call: each for each in raw.StreamStep(iter(frames))}
    assert {call: each.reset.observation.messages[1].content for call, each in begun.items()} == {
        number: f"training 0/{number}" for number in range(20)
    }
    frames = [pb.StreamStepRequest(call=100 + n, step=step(name, 1, "x" * n)) for n, name in enumerate(names)]
    played = {each.call: each.step.reward for each in raw.StreamStep(iter([*frames, pb.StreamStepRequest(call=7)]))}
    assert {call - 100: reward for call, reward in played.items() if call >= 100} == {
        number: pytest.approx(number / 3 + 0.1) for number in range(20)
    }
    assert 7 in played


async def test_a_lease_ends_when_nobody_is_heard_of_and_is_kept_while_the_client_lives():
    with serving(lease_seconds=1.0) as served:
        raw, suite = Raw(served.address), served.suite()
        raw.begin(ONE)
        kept = suite.environment()
        await kept.reset(suite.training_task(1))
        await eventually(lambda: served.counting[0].closed == ["training 0/0"])
        with pytest.raises(grpc.RpcError, match="its lease of 1 s has ended"):
            raw.say(ONE, 1, "late")
        await asyncio.sleep(1.5)
        assert (await kept.step(Message("assistant", "in time"))).reward > 0
        await kept.close()


async def test_where_all_sessions_are_taken_it_is_said_when_to_ask_again_and_the_client_does():
    with serving(max_sessions=1) as served:
        raw, suite = Raw(served.address), served.suite()
        raw.begin(ONE)
        with pytest.raises(grpc.RpcError) as error:
            raw.begin(TWO)
        code, details, metadata = refused(error.value)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "all 1 sessions are taken" in details
        assert int(metadata["fettle-retry-after-ms"]) == 1000
        waiting = suite.environment()
        threading.Timer(0.5, lambda: raw.Close(pb.CloseRequest(session_id=ONE))).start()
        began = time.monotonic()
        assert (await waiting.reset(suite.training_task(0))).messages
        assert time.monotonic() - began >= 0.4
        await waiting.close()


async def test_a_server_that_stays_full_is_told_after_the_patience_in_one_sentence():
    with serving(max_sessions=1) as served:
        Raw(served.address).begin(ONE)
        suite = served.suite(patience=0.5)
        with pytest.raises(EnvironmentFault, match=r"^the server at 127.0.0.1:\d+: all 1 sessions are taken: wait"):
            await suite.environment().reset(suite.training_task(0))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("fault", "the environment failed with EnvironmentFault; the server's log tells more, as fault "),
        ("raise", "the environment failed with ValueError; the server's log tells more, as fault "),
        ("wrong", "the environment failed with TypeError; the server's log tells more, as fault "),
        ("hang", "the environment did not answer within the 0.3 s that the server gives it"),
        ("flood", "what the environment says takes 2097"),
    ],
)
async def test_whatever_an_environment_does_is_a_fault_of_its_episode_that_tells_no_answer(said, sentence):
    with serving(step_seconds=0.3, max_message_mib=1) as served:
        suite = served.suite()
        broken, whole = suite.environment(), suite.environment()
        await broken.reset(suite.training_task(0))
        await whole.reset(suite.training_task(1))
        with pytest.raises(EnvironmentFault) as fault:
            await broken.step(Message("assistant", said))
        assert sentence in fault.value.message
        assert SECRET not in fault.value.message
        await eventually(lambda: served.counting[-1].closed == ["training 0/0"])
        assert (await whole.step(Message("assistant", "well"))).reward > 0
        await whole.close()


def test_a_call_past_its_deadline_is_told_and_its_turn_is_still_to_be_had(served):
    raw = Raw(served.address)
    raw.begin(ONE)
    frame = pb.StreamStepRequest(call=1, deadline_ms=50, step=step(ONE, 1, "slow"))
    (late,) = raw.StreamStep(iter([frame]))
    assert late.fault.code == pb.FAULT_CODE_TIMEOUT
    assert raw.say(ONE, 1, "slow").reward == pytest.approx(4 / 3 + 0.1)


def test_calls_from_several_event_loops_meet_on_one_connection(served):
    suite = served.suite()
    task = suite.training_task(0)
    found: list[float] = []

    async def played() -> None:
        environment = suite.environment()
        await environment.reset(task)
        found.append((await environment.step(Message("assistant", "abc"))).reward)
        await environment.close()

    async def several() -> None:
        await asyncio.gather(*(played() for _ in range(10)))

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [pytest.approx(1.1)] * 40


async def eventually(holds, seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def played_again(suite) -> None:
    environment = suite.environment()
    await environment.reset(suite.training_task(0))
    for _ in range(3):
        await environment.step(Message("assistant", "again"))
