"""A stand-in for the hub: takes the requests of one upload over a socket, and keeps what was sent."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Hub:
    """What it was sent, by whoever has the token."""

    token: str
    url: str = ""
    created: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, token: str | None, body: bytes) -> tuple[int, object]:
        if token != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return 200, {"url": f"{self.url}/acme/sums"}
        if path.endswith("/preupload/main"):
            modes = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"success": True, "commitOid": "c0ffee", "commitUrl": f"{self.url}/acme/sums/commit/c0ffee"}
        return 404, {"error": path}


@contextmanager
def hub_server(token: str) -> Iterator[Hub]:
    """It listens until the end of the block."""
    hub = Hub(token)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.say(*hub.answer(self.path.partition("?")[0], self.headers.get("Authorization"), body))

        def do_GET(self) -> None:
            self.say(*hub.answer(self.path, self.headers.get("Authorization"), b""))

        def say(self, status: int, answer: object) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    listening = Thread(target=server.serve_forever, args=(0.05,))
    listening.start()
    try:
        yield hub
    finally:
        server.shutdown()
        listening.join()
        server.server_close()
