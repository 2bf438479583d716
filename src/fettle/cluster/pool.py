"""Samplers together: weights go to all of them, requests to one each, and again to another if that one dies."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from fettle.cluster.asked import answers
from fettle.cluster.hearing import Look
from fettle.cluster.looks import looks
from fettle.cluster.parcel import Parcel
from fettle.cluster.routing import Sessions
from fettle.cluster.seat import GoneError, Seat, SupersededError
from fettle.engine.base import SampleRequest
from fettle.types import Completion, Floats, Tokens

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Pool:
    """Weights are published on one thread, and drawn from on the same or another."""

    def __init__(self, seats: Sequence[Seat], *, look: float = 2.0) -> None:
        """Those that are slow are looked at every ``look`` seconds."""
        self._seats = {seat.name: seat for seat in seats}
        self._look = look
        self._turn = threading.Lock()  # held while it changes who is there and what they are to hold
        self._gone: set[str] = set()
        self._parcels: dict[str, Parcel] = {}
        self._sessions = Sessions()
        self._lost = self._sent = 0
        self._seconds = 0.0

    def publish(self, parcel: Parcel) -> None:
        """Have every sampler hold these weights, and those that were lost and are back; who dies over it is left out.

        Raises:
            FettleError: a sampler cannot hold them.
        """
        started = time.perf_counter()
        with self._turn:
            self._parcels[parcel.name] = parcel
            taken = self._of_each(lambda seat: seat.take(parcel))
            self._welcome()
            self._sent, self._seconds = len(taken) * parcel.nbytes, time.perf_counter() - started

    def forget(self, name: str) -> None:
        """Weights are not drawn from any more."""
        with self._turn:
            parcel = self._parcels.pop(name, None)
            for seat in self._present() if parcel is not None else ():
                assert parcel is not None
                seat.drop(parcel)

    def logprobs(self, parcel: Parcel, sequences: Sequence[Tokens]) -> Mapping[str, list[Floats]]:
        """What each sampler that is there says of the sequences, by its name.

        Raises:
            FettleError: one of them cannot say it.
        """
        with self._turn:
            return self._of_each(lambda seat: seat.logprobs(parcel, sequences))

    def draw(self, names: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion] | None]:
        """``names[i]`` are the weights of request ``i``; None for one whose weights no sampler holds.

        A request is drawn by one sampler. If that dies, another draws it, from the same seed.

        Raises:
            FettleError: a request cannot be drawn.
        """
        found: list[list[Completion] | None] = [None] * len(requests)
        open_ = list(range(len(requests)))
        while open_:
            with self._turn:
                parcels = [self._parcels.get(name) for name in names]
                shares = self._shares(names, requests, open_)
            calls = {
                place: (self._seats[place], partial(self._drawn, place, share, parcels, requests))
                for place, share in shares.items()
            }
            if not calls:
                break
            for place, future in answers(calls, self._look):
                self._settle(place, future, shares[place], requests, found)
            open_ = [i for i in open_ if found[i] is None]
        return found

    def heard(self, call: str) -> Look:
        """What they draw for a call is heard of so; on any thread."""
        return looks(lambda: [actor for seat in self._present() if (actor := seat.actor()) is not None], call)

    def statistics(self) -> Mapping[str, float]:
        """How many samplers there are, how many were lost so far, and what the last update cost."""
        return {
            "samplers/present": float(len(self._seats) - len(self._gone)),
            "samplers/lost": float(self._lost),
            "sync/bytes": float(self._sent),
            "sync/seconds": self._seconds,
        }

    def close(self) -> None:
        """End them all."""
        for seat in self._seats.values():
            seat.close()

    def _present(self) -> list[Seat]:
        return [seat for name, seat in self._seats.items() if name not in self._gone]

    def _shares(
        self, names: Sequence[str], requests: Sequence[SampleRequest], open_: Sequence[int]
    ) -> dict[str, list[int]]:
        """Which requests each sampler is to draw, of those that are still to be drawn."""
        holders: dict[frozenset[str], list[int]] = {}
        for i in open_:
            held = frozenset(seat.name for seat in self._present() if seat.holds(names[i]))
            holders.setdefault(held, []).append(i)
        shares: dict[str, list[int]] = {}
        for held, own in holders.items():
            costs = [requests[i].n * (len(requests[i].prompt) + requests[i].params.max_tokens) for i in own]
            places = self._sessions.placed([requests[i].prompt for i in own], costs, held) if held else []
            for i, place in zip(own, places, strict=False):
                shares.setdefault(place, []).append(i)
        return shares

    def _drawn(
        self,
        place: str,
        share: Sequence[int],
        parcels: Sequence[Parcel | None],
        requests: Sequence[SampleRequest],
    ) -> list[list[Completion]]:
        own = [parcel for i in share if (parcel := parcels[i]) is not None]
        return self._seats[place].draw(own, [requests[i] for i in share])

    def _settle(
        self,
        place: str,
        future: Future[list[list[Completion]]],
        share: Sequence[int],
        requests: Sequence[SampleRequest],
        found: list[list[Completion] | None],
    ) -> None:
        """Put what a sampler has drawn in its places, or see that it is drawn elsewhere."""
        try:
            drawn = future.result()
        except SupersededError:
            return
        except GoneError as error:
            with self._turn:
                self._lose(place, error)
            return
        for i, completions in zip(share, drawn, strict=True):
            found[i] = completions
            if requests[i].params.continued:
                self._sessions.remember(requests[i].prompt, place)

    def _of_each(self, call: Callable[[Seat], Result]) -> dict[str, Result]:
        """What a call comes to at each sampler that is there; one that dies over it is left out."""
        found = {}
        calls = {seat.name: (seat, partial(call, seat)) for seat in self._present()}
        for name, future in answers(calls, self._look):
            try:
                found[name] = future.result()
            except GoneError as error:
                self._lose(name, error)
        return found

    def _lose(self, name: str, why: GoneError) -> None:
        if name in self._gone:
            return
        logger.warning("%s was lost (%s): others draw what it had begun", name, why)
        self._gone.add(name)
        self._lost += 1
        self._seats[name].leave()

    def _welcome(self) -> None:
        """Take up again whoever is back, with the newest weights of each policy."""
        newest = {parcel.policy: parcel for parcel in self._parcels.values()}
        for name in sorted(self._gone):
            seat = self._seats[name]
            try:
                if not seat.back():
                    continue
                for parcel in newest.values():
                    seat.take(parcel)
            except GoneError as error:
                logger.warning("%s came back, and was lost again: %s", name, error)
                seat.leave()
            else:
                self._gone.remove(name)
                logger.warning("%s is back, with the newest weights", name)
