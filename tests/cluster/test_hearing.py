"""Watches of what another process draws: told once of each token, while it is drawn."""

import threading
from collections.abc import Callable

import pytest

from fettle.cluster.hearing import Ear, Enough, Kept, Look, overheard
from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest, Until
from fettle.types import Completion

TOKENS = range(100, 112)


def asked(*watches) -> list[SampleRequest]:
    return [SampleRequest([1], 2, SamplingParams(max_tokens=len(TOKENS)), watch) for watch in watches]


class Far:
    """Draws for others: twelve tokens for each of two completions, waiting before each for leave to go on."""

    def __init__(self, steps: int = 0) -> None:
        self.kept = Kept()
        self.steps = threading.Semaphore(steps)

    def free(self) -> None:
        self.steps.release(len(TOKENS))

    def look(self, call: str) -> Look:
        return lambda enough: self.kept.heard(call, enough)

    def look_and(self, then: Callable[[Enough, list], None]) -> Callable[[str], Look]:
        """The same, with something done after each look."""

        def hear(call: str) -> Look:
            def look(enough: Enough) -> list:
                found = self.kept.heard(call, enough)
                then(enough, found)
                return found

            return look

        return hear

    def draw(self, ear: Ear) -> list[list[Completion]]:
        requests = ear.elsewhere()
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


def test_a_watch_hears_while_it_is_drawn_and_of_everything_once():
    far, told = Far(1), []

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append((index, token))
        far.steps.release()  # nothing more is drawn before it has heard
        return True

    found = overheard(asked(watch, None), far.look, far.draw)
    assert [len(each.tokens) for completions in found for each in completions] == [12] * 4
    for index in range(2):
        assert [token for at, token in told if at == index] == list(TOKENS)


def test_no_more_is_drawn_than_is_wanted():
    far, told = Far(1), []

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append((index, token))
        far.steps.release()
        return token < TOKENS[2]

    [cut] = overheard(asked(watch), far.look_and(lambda enough, _: far.free() if enough else None), far.draw)
    assert all(3 <= len(each.tokens) < 12 for each in cut)
    assert told[-1][1] == TOKENS[2]
    assert len(told) == len(set(told))


def test_who_only_ends_a_draw_is_told_of_no_token():
    far, over, heard = Far(1), threading.Event(), []

    def then(enough: Enough, found: list) -> None:
        heard.extend(found)
        over.set()
        if enough:
            far.free()

    [cut] = overheard(asked(Until(over.is_set)), far.look_and(then), far.draw)
    assert all(1 <= len(each.tokens) < 12 for each in cut)
    assert heard == []


def test_what_is_drawn_again_elsewhere_is_not_told_again():
    far, told = Far(2 * len(TOKENS)), []

    def twice(ear: Ear) -> list[list[Completion]]:
        far.draw(ear)
        return far.draw(ear)

    overheard(asked(lambda index, token, logprob: told.append((index, token)) or True), far.look, twice)
    assert sorted(told) == [(index, token) for index in range(2) for token in TOKENS]


def test_what_is_drawn_here_after_all_goes_on_where_the_other_was_heard_last():
    far, told = Far(2), []

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append((index, token))
        return token < TOKENS[4]

    def lost(ear: Ear) -> list[list[Completion]]:
        drawing = threading.Thread(target=far.draw, args=(ear,))
        drawing.start()
        while len(told) < 4:  # two steps of two completions
            assert drawing.is_alive()
        own = ear.here(0).watch
        for token in TOKENS:
            wanted = [own(index, token, -0.5) for index in range(2)]
            if not all(wanted):
                break
        far.free()
        drawing.join()
        return [[Completion(list(TOKENS[:5]), [-0.5] * 5, "length", 0) for _ in range(2)]]

    overheard(asked(watch), far.look, lost)
    assert [token for index, token in told if index == 0] == list(TOKENS[:5])
    assert len(told) == len(set(told))


def test_what_a_watch_raises_ends_the_draw_and_is_raised_where_it_was_asked_for():
    far, calls = Far(1), []

    def watch(index: int, token: int, logprob: float) -> bool:
        calls.append(token)
        raise RuntimeError("the reader has gone")

    with pytest.raises(RuntimeError, match="the reader has gone"):
        overheard(asked(watch, None), far.look_and(lambda enough, _: far.free() if enough else None), far.draw)
    assert calls == [TOKENS[0]]


def test_where_nothing_is_heard_of_on_the_way_all_is_told_at_the_end():
    far, told = Far(len(TOKENS)), []
    overheard(asked(lambda index, token, logprob: told.append(token) or token < TOKENS[4]), None, far.draw)
    assert told == list(TOKENS[:5])


def test_nobody_is_asked_where_nobody_watches():
    far = Far(len(TOKENS))
    overheard(asked(None), lambda _: pytest.fail("asked"), far.draw)
