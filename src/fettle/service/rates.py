"""How often a key may ask, and how much it may say at once. Counted in memory: a restart forgives."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fettle.errors import BusyError
from fettle.service.audit import Audit
from fettle.service.callers import Caller

MIB = 2**20
SMALL_BODY_MIB = 1
"""Of requests that carry no batch."""
MOST_BUCKETS = 16_384


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests that cost a service about as much as each other."""

    per_minute: int
    """Of one key."""
    batches: bool = False
    """Whether bodies carry batches, and so may be as large as the service takes at all."""


CLASSES: Mapping[str, RequestClass] = MappingProxyType(
    {
        "training": RequestClass(per_minute=60_000, batches=True),
        "drawing": RequestClass(per_minute=60_000, batches=True),
        "saving": RequestClass(per_minute=600),
        "making": RequestClass(per_minute=600),
        "asking": RequestClass(per_minute=120_000),
    }
)
"""By name. A minute's worth may come at once; then a sixtieth of it each second."""

LAST_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("operations", "forward", "forward_backward", "optim_step", "metrics", "episodes"),
            "training",
        ),
        **dict.fromkeys(
            ("sample", "asample", "stream", "completions", "logprobs", "read", "embed", "embeddings", "score"),
            "drawing",
        ),
        **dict.fromkeys(("tokenize", "detokenize", "chat_template"), "drawing"),
        **dict.fromkeys(
            ("save_state", "load_state", "save_weights", "load_weights", "save_weights_for_sampler"), "saving"
        ),
        **dict.fromkeys(
            ("runs", "samplers", "sampler", "keys", "create_model", "create_session", "create_sampling_session"),
            "making",
        ),
    }
)
"""What POST requests are, by the last word of their address; all others ask."""


def class_of(method: str, path: str) -> str:
    """The name of a request's class.

    >>> class_of("POST", "/v1/runs/r1/forward_backward"), class_of("GET", "/v1/runs")
    ('training', 'asking')
    """
    return LAST_WORDS.get(path.rstrip("/").rpartition("/")[2], "asking") if method == "POST" else "asking"


def body_limit(method: str, path: str, most: int) -> int:
    """Bytes that a request's body may have, where ``most`` is the service's own limit."""
    return most if CLASSES[class_of(method, path)].batches else min(most, SMALL_BODY_MIB * MIB)


@dataclass(slots=True)
class _Bucket:
    """Requests that may still be made at ``at``."""

    left: float
    at: float


class Rates:
    """A bucket of requests for each key and class, and one for each key that has a limit of its own."""

    def __init__(self, audit: Audit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, caller: Caller, kind: str, requests_per_minute: int | None = None) -> None:
        """One request of a class.

        Raises:
            BusyError: the key has used up what it may ask for now; it says when there is more.
        """
        self._take(caller, kind, CLASSES[kind].per_minute)
        if requests_per_minute is not None:
            self._take(caller, "", requests_per_minute)

    def _take(self, caller: Caller, kind: str, per_minute: int) -> None:
        now = self._clock()
        bucket = self._bucket((caller.key, kind), per_minute, now)
        bucket.left = min(per_minute, bucket.left + (now - bucket.at) * per_minute / 60)
        bucket.at = now
        if bucket.left < 1:
            self._audit.note("rate_limited", caller, subject=kind)
            raise BusyError(
                f"the key {caller.key} may make {per_minute} {kind} requests a minute: wait, and send this one again",
                retry_after=(1 - bucket.left) * 60 / per_minute,
            )
        bucket.left -= 1

    def _bucket(self, name: tuple[str, str], per_minute: int, now: float) -> _Bucket:
        if name not in self._buckets and len(self._buckets) >= MOST_BUCKETS:
            self._buckets.pop(next(iter(self._buckets)))
        return self._buckets.setdefault(name, _Bucket(per_minute, now))
