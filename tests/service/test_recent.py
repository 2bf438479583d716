"""The last draws of every run, as far as there is room."""

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.service.clock import now
from fettle.service.recent import MOST_BYTES_OF_RUN, MOST_DRAWS, TOKEN_BYTES, Drawn, Recent
from fettle.types import Completion


def drawn(tokens: int) -> Drawn:
    return Drawn(
        now(), [SampleRequest([1], 1, SamplingParams())], [Completion([1] * tokens, [0.0] * tokens, "stop", 0)]
    )


def test_the_newest_come_first_and_older_ones_go():
    recent = Recent()
    made = [drawn(1) for _ in range(MOST_DRAWS + 3)]
    for each in made:
        recent.add("run", each)
    assert recent.of("run") == made[:2:-1]
    assert recent.nbytes == sum(each.nbytes for each in made[3:])


def test_long_draws_of_a_run_take_no_more_than_its_share():
    recent = Recent()
    for _ in range(9):
        recent.add("run", drawn(MOST_BYTES_OF_RUN // TOKEN_BYTES // 3))
    assert len(recent.of("run")) == 2
    recent.add("run", drawn(MOST_BYTES_OF_RUN))
    assert (recent.of("run"), recent.nbytes) == ([], 0)


def test_the_run_that_has_drawn_least_recently_makes_room_for_the_others():
    recent = Recent(most_bytes=3 * drawn(10).nbytes)
    for run in ("one", "two", "three", "one", "four"):
        recent.add(run, drawn(10))
    assert [len(recent.of(run)) for run in ("one", "two", "three", "four")] == [2, 0, 0, 1]
    recent.forget("one")
    recent.forget("one")
    assert recent.nbytes == recent.of("four")[0].nbytes
