"""Numbers of the Tinker API to the broker's: each request of a model is carried out once, in the order of arrival.

A client numbers its requests from 1; one that is refused has used up its number, and the parts of one call arrive in
any order. The broker's numbers have no gaps. The client's number stands in front of the hash under which the broker
keeps an operation, and so is still known after a restart.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from fettle.broker import Broker, PolicyInfo, Promise, operation_id
from fettle.errors import NotFoundError, SequenceError

KEPT = 4096
"""Requests of one model that are remembered; none is ever sent again so late."""


class Submit(Protocol):
    """Hands an operation to the broker, under a number and a hash."""

    def __call__(self, incarnation: int, number: int, digest: str) -> Awaitable[Promise]:
        """The promise of it."""
        ...


@dataclass(slots=True)
class _Model:
    """What is known of one model's requests."""

    incarnation: int
    known: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By the client's number: the hash of what it said, and the id of the promise."""
    greatest: int = 0


class Numbering:
    """The requests of every model."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._models: dict[str, _Model] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def once(self, model: str, seq: int | None, said: str, submit: Submit) -> Promise:
        """The promise of a request, which is submitted if it was not before; ``seq`` None or 0 is never the same again.

        Raises:
            SequenceError: the number was used for something else, or is long past.
            NotFoundError: there is no such model.
        """
        async with self._locks.setdefault(model, asyncio.Lock()):
            info = self._broker.policies().get(model)
            if info is None:
                raise NotFoundError(f"there is no model {model!r} here: it was closed, or never made")
            requests = self._requests(info)
            if seq and seq in requests.known:
                return self._again(requests, seq, said)
            if seq and seq < requests.greatest - KEPT:
                raise SequenceError(f"request {seq} of {model} is long past: it is at {requests.greatest}")
            promise = await submit(info.incarnation, info.next_seq, f"{seq or 0}.{said}")
            if seq:
                _remember(requests, seq, said, promise.id)
            return promise

    def _forget_the_gone(self) -> None:
        there = self._broker.policies()
        self._models = {name: model for name, model in self._models.items() if name in there}
        self._locks = {name: lock for name, lock in self._locks.items() if name in there or lock.locked()}

    def _again(self, requests: _Model, seq: int, said: str) -> Promise:
        before, promise = requests.known[seq]
        if before != said:
            raise SequenceError(f"request {seq} was sent before with different contents: use the next number")
        return self._broker.promise(promise)

    def _requests(self, info: PolicyInfo) -> _Model:
        """What is known of a model's requests, read from the broker where this process has seen none."""
        found = self._models.get(info.name)
        if found is not None and found.incarnation == info.incarnation:
            return found
        self._forget_the_gone()
        found = self._models[info.name] = _Model(info.incarnation)
        for number in range(max(info.next_seq - KEPT, 0), info.next_seq):
            try:
                promise = self._broker.promise(operation_id(info.name, info.incarnation, number))
            except NotFoundError:
                continue
            seq, dot, said = promise.digest.partition(".")
            if dot and seq.isdigit() and int(seq):
                _remember(found, int(seq), said, promise.id)
        return found


def _remember(requests: _Model, seq: int, said: str, promise: str) -> None:
    requests.known[seq] = (said, promise)
    requests.greatest = max(requests.greatest, seq)
    if len(requests.known) > KEPT:
        del requests.known[next(iter(requests.known))]
