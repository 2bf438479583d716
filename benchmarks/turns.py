"""Turns: conversations whose computed keys and values are kept between turns, against reading them anew at each.

Sixteen conversations begin with 256 tokens; then they take turns, 16 tokens drawn and 32 answered. The tokens drawn are
the same number on both sides: the model hardly ever ends a reply by itself.
"""

from itertools import count
from random import Random

from benchmarks import models
from benchmarks.figures import ratio
from benchmarks.harness import Outcome, Row, Settings, interleaved, main, seconds_of, told
from benchmarks.machine import Floor
from benchmarks.models import FIRST_ID, SIZES
from benchmarks.workload import POLICY, engine
from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend

ROW = Row(
    name="turns",
    work="16 conversations of 8 turns, 17 M: the cache kept between turns",
    peer="the conversation read anew at each turn",
    target=1.0,
)
FRESH = count()
"""Every playing has conversations of its own: what one side has kept must not serve the other."""
CONVERSATIONS, FIRST, DRAWN, ANSWERED = 16, 256, 16, 32


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    turns = 3 if settings.quick else 8
    with engine(settings, models.folder("small", ends=None)) as backend:
        sides = {
            "ours": lambda: seconds_of(lambda: played(backend, turns, kept=True), settings.device),
            "peer": lambda: seconds_of(lambda: played(backend, turns, kept=False), settings.device),
        }
        found = interleaved(sides, settings.repetitions)
    return Outcome(ratio(found["peer"], found["ours"]), told(found["ours"]), told(found["peer"]))


def played(backend: LocalBackend, turns: int, *, kept: bool) -> None:
    """All conversations, a turn of all at a time."""
    rng, vocabulary = Random(f"turns {next(FRESH)}"), SIZES["small"].vocabulary
    talks = [[rng.randrange(FIRST_ID, vocabulary) for _ in range(FIRST)] for _ in range(CONVERSATIONS)]
    weights, _ = backend.pin(POLICY)
    for turn in range(turns):
        asked = [
            SampleRequest(
                talk, 1, SamplingParams(max_tokens=DRAWN, seed=100 * index + turn, continued=kept and turn < turns - 1)
            )
            for index, talk in enumerate(talks)
        ]
        said = backend.sample([weights] * len(asked), asked)
        answers = [[rng.randrange(FIRST_ID, vocabulary) for _ in range(ANSWERED)] for _ in talks]
        talks = [[*talk, *one.tokens, *answer] for talk, (one,), answer in zip(talks, said, answers, strict=True)]
    backend.unpin(weights)


if __name__ == "__main__":
    main(ROW, measured)
