"""A real service: in a thread of this process, or as a process of its own that can be killed."""

import asyncio
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fettle.cli.serving import opened
from fettle.config import LocalEngine, ServedModel, ServiceConfig
from fettle.frames import MEDIA_TYPE, packed, unpacked
from fettle.service.app import app_of
from fettle.service.connections import bound, server_of
from fettle.service.core import Service
from tests.forked import Forked

PATIENCE_S = 60.0
NAME = "tiny"
ALIAS = "Qwen/Qwen3-8B"
Layers = Callable[[Service], list[Any]]


class Client(httpx.Client):
    """A caller with a key."""

    def said(self, method: str, path: str, tree: Any = None, *, status: int | None = None) -> Any:
        """What the answer says; a status other than the expected one fails with the answer's own words."""
        response = self.request(method, path, json=tree)
        expected = response.is_success if status is None else response.status_code == status
        assert expected, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def framed(self, method: str, path: str, tree: Any = None) -> Any:
        """The same, in frames."""
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        response = self.request(method, path, content=packed(tree), headers=headers)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return unpacked(response.content)

    def result(self, id: str) -> Any:
        """What a promise came to."""
        while True:
            told = self.said("GET", f"/v1/futures/{id}?wait=30")
            if told["status"] == "completed":
                return told["result"]
            assert told["status"] == "pending", told

    def new_run(self, **settings: Any) -> str:
        """The id of a run that has begun."""
        run = self.said("POST", "/v1/runs?wait=60", {"base_model": NAME, **settings})
        return str(run["id"])


def caller(url: str, key: str) -> Client:
    """A client that has a key, or none."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Client(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False, verify=False)


@dataclass
class Served:
    """A service in a thread of this process."""

    url: str
    service: Service
    key: str
    admin_key: str
    other_key: str
    model: str
    """Its folder."""
    loop: asyncio.AbstractEventLoop

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine comes to on the service's own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The thread that computes does nothing until the block ends: it is at this when the block begins."""
        begun, over = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            over.wait(PATIENCE_S)

        holding = asyncio.run_coroutine_threadsafe(self.service.broker.run(hold), self.loop)
        assert begun.wait(PATIENCE_S)
        try:
            yield
        finally:
            over.set()
            holding.result(PATIENCE_S)

    def client(self, key: str | None = None) -> Client:
        """Whoever holds the key, if not the first tenant."""
        return caller(self.url, self.key if key is None else key)


@contextmanager
def serving(state: Path, model: str, *, layers: Layers = lambda service: [], **settings: Any) -> Iterator[Served]:
    """A service over a model, until the block ends; ``layers`` are put around its application."""
    given = {
        "models": (ServedModel(name=NAME, path=model, aliases=(ALIAS,)),),
        "engine": LocalEngine(device="cpu", threads=1),
        "state": str(state),
        **settings,
    }
    config, begun = ServiceConfig(**given), Begun()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(config, begun, layers)), daemon=True)
    thread.start()
    assert begun.ready.wait(PATIENCE_S), "the service did not start"
    assert begun.served is not None, "the service failed at its start"
    try:
        yield begun.served
    finally:
        begun.served.loop.call_soon_threadsafe(begun.over.set)
        thread.join(PATIENCE_S)


@dataclass
class Begun:
    """What the thread says of itself."""

    ready: threading.Event = field(default_factory=threading.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    served: Served | None = None


async def _serve(config: ServiceConfig, begun: Begun, layers: Layers) -> None:
    try:
        async with opened(config) as service:
            keys = [await service.keys.create(tenant) for tenant in ("one", "two")]
            _, admin = await service.keys.create("admin", admin=True)
            listening = bound("127.0.0.1", 0)
            server = server_of(app_of(service, *layers(service)), config)
            answering = asyncio.create_task(server.serve([listening]))
            await service.start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            model = config.models[0].path
            loop = asyncio.get_running_loop()
            begun.served = Served(url, service, keys[0][1], admin, keys[1][1], model, loop)
            begun.ready.set()
            await begun.over.wait()
            await service.stop(patience_s=5.0)
            server.should_exit = True
            server.force_exit = True
            await answering
    finally:
        begun.ready.set()


class Spawned:
    """``fettle serve`` as a process, which can be killed and started again on the same state folder and port.

    ``within`` is a command that runs the one that is put after it; without it, the process is a fork.
    """

    def __init__(self, state: Path, model: str, *arguments: str, within: Sequence[str] = ()) -> None:
        self.state = state
        self.key = ""
        self.url = ""
        self.said = ""
        """What it printed of its first key."""
        self._model = model
        self._arguments = arguments
        self._within = within
        self._port = 0
        self._process: subprocess.Popen[str] | Forked | None = None
        self._log = (state.parent / f"{state.name}.log").open("a")

    def start(self) -> "Spawned":
        """Start it, and return once it listens."""
        arguments = ["serve", "--model", f"{NAME}={self._model}", "--alias", f"{ALIAS}={NAME}"]
        arguments += ["--state", str(self.state), "--port", str(self._port), *self._arguments]
        arguments += ["engine.threads=1", "engine.device=cpu"]
        if self._within:
            command = [*self._within, sys.executable, "-c", "from fettle.cli import main; main()", *arguments]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        else:
            self._process = Forked(*arguments, complaints=Path(self._log.name))
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"the first key, an admin's, is in (.+): take it", line):
                file = Path(found[1])
                self.key = file.read_text().strip()
                self.said += line
                file.unlink()
            if found := re.search(r"serving .* at (http\S+:(\d+)),", line):
                self.url, self._port = found[1], int(found[2])
                return self
        raise AssertionError(f"the service ended with {self._process.wait()}: see {self._log.name}")

    def kill(self) -> None:
        """As the operating system does when it has had enough."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def ask_to_stop(self) -> None:
        """As a supervisor does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def limit_files(self, nbytes: int | None) -> None:
        """Let no file grow beyond so many bytes; None lets them again."""
        assert self._process is not None
        limit = resource.RLIM_INFINITY if nbytes is None else nbytes
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def seen(self, path: Path) -> Path:
        """A path as the process sees it, which may have disks of its own."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root") / path.resolve().relative_to("/")

    def ended(self) -> int:
        """How it ended."""
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def log(self) -> str:
        """What it wrote into its log."""
        return Path(self._log.name).read_text()

    def client(self, key: str | None = None) -> Client:
        """Whoever holds the key, if not the first."""
        return caller(self.url, self.key if key is None else key)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
