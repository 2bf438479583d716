"""A real PostgreSQL, started for the tests and ended by its process id; and what every store test runs on."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from fettle.service.store import Store

PATIENCE_S = 30


@dataclass
class Postgres:
    """A server on a port of its own, with its files in a folder of its own."""

    folder: Path
    port: int
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def make(self) -> None:
        subprocess.run(
            as_its_user("initdb", "--no-sync", "--auth=trust", "--username=fettle", "-D", self.data),
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def start(self) -> None:
        settings = ("fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}")
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("a") as log:
            subprocess.Popen(
                as_its_user("postgres", "-D", self.data, "-p", str(self.port), *options),
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until(self.answers)

    def stop(self) -> None:
        pid_file = Path(self.data) / "postmaster.pid"
        if not pid_file.exists():
            return
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
        until(lambda: not pid_file.exists())

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=2):
            return True
        return False

    def new_database(self) -> str:
        name = f"catalogue_{next(self.numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://fettle@127.0.0.1:{self.port}/{database}"

    @property
    def data(self) -> str:
        return str(self.folder / "data")


def as_its_user(*command: str) -> list[str]:
    """PostgreSQL will not run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


def until(happened, patience_s=PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("no PostgreSQL here: initdb and postgres are not on PATH")
    # Under a folder that the server's own user may enter, which pytest's are not.
    folder = Path(tempfile.mkdtemp(prefix="fettle-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Postgres(folder, free.getsockname()[1])
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path) -> str:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
async def store(database_url, tmp_path) -> AsyncIterator[Store]:
    opened = await Store.opened(database_url, tmp_path)
    yield opened
    await opened.close()


class Locked:
    """A file of SQLite's that another program keeps to itself while this is entered."""

    def __init__(self, path: Path) -> None:
        self._other = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self._other.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._other.execute("ROLLBACK")

    def close(self) -> None:
        self._other.close()


@dataclass
class Wire:
    """The way to a server of PostgreSQL's, which breaks where the server answers what it is told to listen for."""

    port: int
    """Of the server."""
    cuts: int = 0
    _heard: bytes = b""

    @contextlib.contextmanager
    def cut_at(self, answer: bytes) -> Iterator[None]:
        """Break at this answer, which nobody gets, until the block ends."""
        self._heard = answer
        yield
        self._heard = b""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Its own port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asks = await asyncio.open_connection("127.0.0.1", self.port)
        asking = asyncio.create_task(self._passed_on(reader, asks, listening=False))
        await self._passed_on(answers, writer, listening=True)
        await asking

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, listening: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while said := await reader.read(1 << 16):
                if listening and self._heard and self._heard in said:
                    self.cuts += 1
                    break
                writer.write(said)
                await writer.drain()
        writer.close()
