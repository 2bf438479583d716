"""A small server that speaks as much of OpenAI's chat completions as a judge needs, over a real socket."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, Any] | str, Mapping[str, str]]
"""A status, what is said, and headers."""


class Endpoint:
    """What was asked, and how many questions were there at once."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], Answer]) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.keys: list[str | None] = []
        self.most = 0
        self._answer = answer
        self._lock = threading.Lock()
        self._here = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.asked.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self._here += 1
            self.most = max(self.most, self._here)
        status, said, headers = self._answer(body) if handler.path == "/v1/chat/completions" else (404, "", {})
        with self._lock:
            self._here -= 1
        text = (said if isinstance(said, str) else json.dumps(said)).encode()
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def endpoint(answer: Callable[[Mapping[str, Any]], Answer]) -> Iterator[Endpoint]:
    served = Endpoint(answer)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def said(text: str, tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None) -> Answer:
    """A chat completion; ``tokens`` are its tokens, each with the probabilities of the likeliest in its place."""
    told = None
    if tokens is not None:
        told = {
            "content": [
                {
                    "token": token,
                    "logprob": math.log(likeliest.get(token, 1.0)),
                    "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in likeliest.items()],
                }
                for token, likeliest in tokens
            ]
        }
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": told, "finish_reason": "stop"}
    return 200, {"choices": [choice]}, {}
