"""Watches of what another process draws: told once of each token, while it is drawn."""

import threading

import pytest

from fettle.cluster.hearing import Kept, overheard
from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.types import Completion

TOKENS = range(100, 112)


def asked(*watches) -> list[SampleRequest]:
    return [SampleRequest([1], 2, SamplingParams(max_tokens=len(TOKENS)), watch) for watch in watches]


class Far:
    """Draws for others: twelve tokens for each of two completions, waiting for whoever lets it go on."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.steps = threading.Semaphore(0)

    def draw(self, requests: list[SampleRequest]) -> list[list[Completion]]:
        tokens = [[[], []] for _ in requests]
        with self.kept.keeping(requests) as kept:
            going = set(range(len(requests)))
            for token in TOKENS:
                assert self.steps.acquire(timeout=20)
                for place in sorted(going):
                    for index in range(2):
                        tokens[place][index].append(token)
                        watch = kept[place].watch
                        if watch is not None and not watch(index, token, -0.5):
                            going.discard(place)
        return [[Completion(own, [-0.5] * len(own), "length", 0) for own in each] for each in tokens]


def free(far: Far, steps: int = len(TOKENS)) -> None:
    for _ in range(steps):
        far.steps.release()


def test_a_watch_hears_while_it_is_drawn_and_of_everything_once():
    far, told = Far(), []
    free(far, 1)

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append((index, token))
        far.steps.release()  # nothing more is drawn before it has heard
        return True

    found = overheard(asked(watch, None), far.kept.heard, far.draw)
    assert [len(each.tokens) for completions in found for each in completions] == [12] * 4
    for index in range(2):
        assert [token for at, token in told if at == index] == list(TOKENS)


def test_no_more_is_drawn_than_is_wanted():
    far = Far()

    def watch(index: int, token: int, logprob: float) -> bool:
        far.steps.release()
        return token < TOKENS[2]

    free(far, 1)
    threading.Timer(1.0, free, [far]).start()
    [cut] = overheard(asked(watch), far.kept.heard, far.draw)
    assert all(3 <= len(each.tokens) < 12 for each in cut)


def test_what_is_drawn_again_elsewhere_is_not_told_again():
    far, told = Far(), []
    free(far, 2 * len(TOKENS))

    def twice(requests: list[SampleRequest]) -> list[list[Completion]]:
        far.draw(requests)
        return far.draw(requests)

    overheard(asked(lambda index, token, logprob: told.append((index, token)) or True), far.kept.heard, twice)
    assert sorted(told) == [(index, token) for index in range(2) for token in TOKENS]


def test_what_a_watch_raises_is_raised_where_it_was_asked_for():
    far = Far()
    free(far, 1)
    threading.Timer(0.5, free, [far]).start()

    def watch(index: int, token: int, logprob: float) -> bool:
        raise RuntimeError("the reader has gone")

    with pytest.raises(RuntimeError, match="the reader has gone"):
        overheard(asked(watch), far.kept.heard, far.draw)


def test_where_nothing_is_heard_of_on_the_way_all_is_told_at_the_end():
    far, told = Far(), []
    free(far)
    overheard(asked(lambda index, token, logprob: told.append(token) or token < TOKENS[4]), None, far.draw)
    assert told == list(TOKENS[:5])


def test_nobody_is_asked_where_nobody_watches():
    far = Far()
    free(far)
    overheard(asked(None), lambda *_: pytest.fail("asked"), far.draw)
