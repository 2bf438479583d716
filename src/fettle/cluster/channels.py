"""How the first of several processes tells the others what to do, and hears what came of it."""

import secrets
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from fettle.cluster.world import World
from fettle.errors import EngineError

RUN = "fettle/run"
"""Where processes that are started anew find what those before them were at."""


SAID_WITHIN = 5
"""Seconds in which whoever comes says who he is."""


class GoneError(Exception):
    """A process has ended; ``ranks`` are those that have."""

    def __init__(self, ranks: Sequence[int]) -> None:
        super().__init__(", ".join(map(str, ranks)))
        self.ranks = ranks


class Meeting:
    """The place where the processes of a world find each other."""

    def __init__(self, world: World, *, seconds: float) -> None:
        """Takes until it is there.

        Raises:
            EngineError: it is not, in so many seconds.
        """
        self._world = world
        self._seconds = seconds
        try:
            self._store = TCPStore(
                world.host,
                world.port,
                is_master=world.rank == 0 and not world.kept,
                timeout=timedelta(seconds=seconds),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            raise EngineError(self._not_there(error)) from error

    def remember(self, run: str) -> None:
        """What those that are started after these should go on with."""
        self._store.set(RUN, run)

    def remembered(self) -> str | None:
        """What those before these were at, where whoever started them has kept it."""
        return self._store.get(RUN).decode() if self._store.check([RUN]) else None

    def led(self) -> list[Connection]:
        """The channels to all others, in the order of their ranks; called by the first.

        Raises:
            EngineError: they have not all come in time.
        """
        key = secrets.token_bytes(32)
        host = self._world.address()
        found: dict[int, Connection] = {}
        with socket.create_server((host, 0), backlog=self._world.size) as door:
            self._store.set(self._name, f"{host} {door.getsockname()[1]} {key.hex()}")
            until = time.monotonic() + self._seconds
            while len(found) < self._world.size - 1:
                left = until - time.monotonic()
                if left <= 0:
                    missing = sorted(set(range(1, self._world.size)) - set(found))
                    raise EngineError(
                        f"of {self._world.size} processes {missing} have not come in {self._seconds:g} s: they have "
                        "ended, or the address is not one that their machines see"
                    )
                door.settimeout(left)
                with suppress(AuthenticationError, EOFError, OSError):  # strangers, and that nobody has come
                    comer, _ = door.accept()
                    channel = _known(comer, key)
                    found[channel.recv()] = _lasting(channel)
        return [found[rank] for rank in sorted(found)]

    def following(self) -> Connection:
        """The channel to the first; called by all others.

        Raises:
            EngineError: it is not there in time.
        """
        try:
            host, port, key = self._store.get(self._name).decode().split()
            channel = Client((host, int(port)), authkey=bytes.fromhex(key))
        except (RuntimeError, OSError, EOFError, AuthenticationError) as error:
            raise EngineError(self._not_there(error)) from error
        channel.send(self._world.rank)
        return _lasting(channel)

    @property
    def _name(self) -> str:
        """Of the channels, which are others where all are started anew."""
        return f"fettle/channels/{self._world.begun}"

    def _not_there(self, error: Exception) -> str:
        return (
            f"process {self._world.rank} of {self._world.size} does not find the first at {self._world.host}:"
            f"{self._world.port} in {self._seconds:g} s ({str(error).splitlines()[0]}): it has ended, or the "
            "address is not one that this machine sees"
        )


class Channels:
    """All channels of the first process."""

    def __init__(self, channels: Sequence[Connection]) -> None:
        self._channels = dict(enumerate(channels, start=1))

    def __len__(self) -> int:
        return len(self._channels)

    def say(self, words: Mapping[int, object]) -> None:
        """Tell ranks each its word; one that several are told is made into bytes once.

        Raises:
            GoneError: some have ended.
        """
        made: dict[int, Any] = {}
        gone = []
        for rank, word in words.items():
            if id(word) not in made:
                made[id(word)] = ForkingPickler.dumps(word)
            try:
                self._channels[rank].send_bytes(made[id(word)])
            except OSError:
                gone.append(rank)
        if gone:
            raise GoneError(gone)

    def heard(self, ranks: Sequence[int]) -> list[Any]:
        """What these answer, in order; takes as long as they do.

        Raises:
            GoneError: one has ended.
        """
        waiting = {self._channels[rank]: rank for rank in ranks}
        found: dict[int, Any] = {}
        while waiting:
            for channel in wait(list(waiting)):
                assert isinstance(channel, Connection)
                rank = waiting.pop(channel)
                try:
                    found[rank] = channel.recv()
                except (EOFError, OSError) as error:
                    raise GoneError([rank]) from error
        return [found[rank] for rank in ranks]

    def gone(self, seconds: float) -> list[int]:
        """Which have ended, looked at for so long."""
        if not self._channels:
            return []
        named = {channel: rank for rank, channel in self._channels.items()}
        found = []
        for channel in wait(list(named), timeout=seconds):
            assert isinstance(channel, Connection)
            try:
                channel.recv()
            except (EOFError, OSError):
                found.append(named[channel])
        return found

    def close(self, word: object) -> None:
        """A last word, to those that are left."""
        for channel in self._channels.values():
            with suppress(OSError):
                channel.send(word)
            channel.close()


def _known(comer: socket.socket, key: bytes) -> Connection:
    """The channel to somebody who knows the key, and says so at once."""
    comer.settimeout(None)
    comer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SAID_WITHIN, 0))
    channel = Connection(comer.detach())
    deliver_challenge(channel, key)
    answer_challenge(channel, key)
    return channel


def _lasting(channel: Connection) -> Connection:
    """Also of a machine that has gone without a word it is told, in minutes."""
    with socket.socket(fileno=channel.fileno()) as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there.detach()
    return channel
