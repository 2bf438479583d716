"""Fettle's own service under measurement: a process over one model, its tenants, and what they ask of it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import ROOT
from benchmarks.processes import Server, free_port

SERVED = "model"
"""What the model is called at the service."""
FETTLE = ("-c", "from fettle.cli import main; main()")
"""Arguments of the interpreter for ``fettle``."""


class Tenant:
    """One who uses the service, as a program without a library would: JSON, one request at a time."""

    def __init__(self, url: str, key: str, state: Path, *, model: str = SERVED) -> None:
        self.url = url
        self.model = model
        self.key = key
        self._state = state
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120.0)

    def asks(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer, as it stands in JSON.

        Raises:
            SystemExit: it was refused.
        """
        answer = self._http.request(method, path, json=body, params=query)
        if not answer.is_success:
            raise SystemExit(f"{method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        return answer.json()

    def tries(
        self, method: str, path: str, *, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer, whatever it is."""
        return self._http.request(method, path, content=content, headers=headers)

    def outcome(self, promise: str) -> Any:
        """What an operation came to."""
        told: dict[str, Any] = {"status": "pending"}
        while told["status"] == "pending":
            told = self.asks("GET", f"/v1/futures/{promise}", wait=30)
        if told["status"] != "completed":
            raise SystemExit(f"{promise} failed: {told}")
        return told["result"]

    def run(self, *, rank: int = 4) -> str:
        """A new run of an adapter; its id, once it is open."""
        run_id: str = self.asks("POST", "/v1/runs", {"base_model": self.model, "lora": {"rank": rank}})["id"]
        self.outcome(f"{run_id}.open")
        return run_id

    def sampler(self) -> str:
        """A new sampler of the model; its id."""
        sampler_id: str = self.asks("POST", "/v1/samplers", {"model": self.model})["id"]
        return sampler_id

    def version(self, run_id: str) -> int:
        """How many steps a run has behind it."""
        version: int = self.asks("GET", f"/v1/runs/{run_id}")["version"]
        return version

    def saved(self, run_id: str, name: str) -> str:
        """A hash of a run's weights and optimizer as they are saved now."""
        self.outcome(self.asks("POST", f"/v1/runs/{run_id}/save_state", {"name": name})["id"])
        folder = self._state / "checkpoints" / run_id / "weights" / name
        hasher = hashlib.sha256()
        for path in sorted(folder.rglob("*.safetensors")):
            hasher.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        return hasher.hexdigest()


class Service:
    """The service, as ``fettle serve`` starts it, for the time of a block."""

    def __init__(self, model: str, folder: Path, *, threads: int, fettle: Sequence[str] = FETTLE) -> None:
        """``fettle`` are the interpreter's arguments for the program whose ``serve`` is measured."""
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, *fettle, "serve", "--model", f"{SERVED}={model}", "--state", str(self.state)]
        command += ["--port", str(port), f"engine.threads={threads}"]
        self.server = Server(command, f"{self.url}/readyz", log=folder / "log", cwd=ROOT)

    def __enter__(self) -> "Service":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def tenant(self, name: str) -> Tenant:
        """A new tenant, with a key."""
        command = [sys.executable, *FETTLE, "keys", "create", "--json"]
        command += ["--tenant", name, "--state", str(self.state)]
        made = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)
        return Tenant(self.url, json.loads(made.stdout)["secret"], self.state)
