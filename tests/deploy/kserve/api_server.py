"""A stand-in for the API of a Kubernetes cluster: its paths, its statuses and its merge patches, over a socket."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

TOKEN = "a-token-of-this-cluster"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/"
JOBS = "/apis/ray.io/v1/namespaces/"
MERGE = "application/merge-patch+json"


@dataclass
class Api:
    """What it holds, and what it was asked."""

    kubeconfig: Path
    url: str = ""
    has_kserve: bool = True
    has_kuberay: bool = True
    has_room: bool = True
    """For another ConfigMap."""
    namespaces: set[str] = field(default_factory=lambda: {"default"})
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By namespace and name, as ``default/sums``."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def write_kubeconfig(self, token: str = TOKEN) -> None:
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "here",
        }
        self.kubeconfig.write_text(yaml.safe_dump(tree))

    def answer(self, method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        self.calls.append(f"{method} {path}")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return failure(401, "Unauthorized")
        if path.startswith(SERVICES):
            return self.of_services(method, path.removeprefix(SERVICES), headers, body)
        if path.startswith(JOBS):
            return self.of_jobs(method, path.removeprefix(JOBS), body)
        if path.endswith("/configmaps"):
            if not self.has_room:
                return failure(403, "exceeded quota")
            self.recipes[body["metadata"]["name"]] = body
            return 201, body
        return self.of_namespaces(method, path.removeprefix("/api/v1/namespaces").strip("/"), body)

    def of_namespaces(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            self.namespaces.add(body["metadata"]["name"])
            return 201, {"kind": "Namespace", "apiVersion": "v1", **body}
        if name not in self.namespaces:
            return failure(404, f'namespaces "{name}" not found')
        return 200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}

    def of_jobs(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if not self.has_kuberay:
            return 404, "404 page not found"
        name = path.partition("/rayjobs")[2].strip("/") or body["metadata"]["name"]
        if method == "DELETE":
            return 200, self.jobs.pop(name)
        if name in self.jobs:
            return failure(409, f'rayjobs.ray.io "{name}" already exists')
        self.jobs[name] = {**body, "metadata": {**body["metadata"], "uid": f"uid-of-{name}"}}
        return 201, self.jobs[name]

    def of_services(self, method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        if not self.has_kserve:
            return 404, "404 page not found"
        namespace, _, name = path.partition("/inferenceservices")
        key = f"{namespace}/{name.strip('/') or body['metadata']['name']}"
        if method == "POST":
            if namespace not in self.namespaces:
                return failure(404, f'namespaces "{namespace}" not found')
            self.services[key] = {**body, "metadata": {**body["metadata"], "generation": 1}}
            return 201, self.services[key]
        if key not in self.services:
            return failure(404, f'inferenceservices.serving.kserve.io "{key.partition("/")[2]}" not found')
        if method == "DELETE":
            return 200, self.services.pop(key)
        if method == "PATCH":
            if headers["Content-Type"] != MERGE:
                return failure(415, headers["Content-Type"])
            patched = merged(self.services[key], body)
            patched["metadata"]["generation"] += 1
            self.services[key] = patched
        return 200, self.services[key]


def failure(status: int, message: str) -> tuple[int, Any]:
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


@contextmanager
def api_server(folder: Path) -> Iterator[Api]:
    """It listens until the end of the block; a kubeconfig in the folder leads to it."""
    api = Api(folder / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, said = api.answer(self.command, self.path, self.headers, body)
            content = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PATCH(self) -> None:
            self.answer()

        def do_DELETE(self) -> None:
            self.answer()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    api.write_kubeconfig()
    listening = Thread(target=server.serve_forever, args=(0.02,))
    listening.start()
    try:
        yield api
    finally:
        server.shutdown()
        listening.join()
        server.server_close()
