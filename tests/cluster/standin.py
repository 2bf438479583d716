"""A stand-in for a server of vLLM: its documented HTTP API over a real socket, and a tiny model behind it.

It reads adapters as PEFT writes them and whole weights as transformers does, and computes by itself, one token after
the other: what it says is no echo of the engine under test. Whatever the API does not document is refused, and what a
server of vLLM 0.32.0 was seen to refuse, in its words (``python -m benchmarks.vllm`` holds Fettle against a real one).
"""

import json
import math
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

COMPLETION = {
    "model", "prompt", "n", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop",
    "stop_token_ids", "ignore_eos", "seed", "logprobs", "return_token_ids", "prompt_logprobs",
}  # fmt: skip
CONTEXT, MAX_RANK, MAX_LOGPROBS, MAX_STOPS = 64, 16, 20, 4
BODIES = {
    "/v1/completions": COMPLETION,
    "/v1/load_lora_adapter": {"lora_name", "lora_path"},
    "/v1/unload_lora_adapter": {"lora_name"},
    "/collective_rpc": {"method", "kwargs"},
    "/update_weight_version": {"new_version"},
    "/pause": set(),
    "/resume": set(),
    "/reset_prefix_cache": set(),
}


class RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class StandIn:
    """``said`` is all that it was asked, in order. ``processed`` is ``--logprobs-mode processed_logprobs``."""

    def __init__(self, model: str, *, processed: bool = True) -> None:
        self.model, self.processed = model, processed
        self.said: list[tuple[str, dict]] = []
        self.fault = lambda path: None
        """Called with the path of each request before it is answered."""
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin, or begin anew on the same port, with the weights that it was first started with."""
        self._whole = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        self._adapters: dict[str, dict[str, Tensor]] = {}
        self._version = "default"
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self.seen: set[str] = set()
        self.held: list = []
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(json.loads(content) if content else {})

            def answer(self, body: dict) -> None:
                place = urlsplit(self.path)
                try:
                    query = {name: value for name, [value] in parse_qs(place.query).items()}
                    status, found = 200, standin.answered(place.path, body, query)
                except RefusedError as error:
                    status, found = error.status, {"error": {"message": str(error), "code": error.status}}
                    if str(error) == "Not Found":
                        found = {"detail": "Not Found"}
                    self.close_connection = status >= 500  # as it does, and does not say
                content = json.dumps(found).encode()
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request, address) -> None:
                standin.held.append(request)
                super().process_request(request, address)

            def handle_error(self, request, address) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Nobody is answered any more, not even those who wait."""
        self._server.shutdown()
        self._server.server_close()
        for request in self.held:
            with suppress(OSError):
                request.shutdown(2)
        self.held.clear()

    def answered(self, path: str, body: dict, query: dict) -> object:
        self.said.append((path, body))
        self.fault(path)
        if path == "/health":
            return {}
        if path == "/v1/models":
            base = {"id": "tiny", "object": "model", "parent": None, "max_model_len": CONTEXT}
            adapters = [{"id": name, "object": "model", "parent": "tiny"} for name in self._adapters]
            return {"object": "list", "data": [base, *adapters]}
        if path == "/weight_info":
            return {"weight_version": self._version}
        if path not in BODIES:
            raise RefusedError(404, "Not Found")
        if unknown := set(body) - BODIES[path]:
            raise RefusedError(400, f"Extra inputs are not permitted: {sorted(unknown)}")
        if path == "/v1/completions":
            self._going.wait()
            with self._lock, torch.no_grad():
                return self._completions(body)
        return self._controlled(path, body, query)

    def _controlled(self, path: str, body: dict, query: dict) -> object:
        if path == "/pause":
            assert query == {"mode": "wait"}
            self._going.clear()
            with self._lock:  # what is under way ends
                return {"status": "paused"}
        if path == "/resume":
            self._going.set()
            return {"status": "resumed"}
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.seen:
                raise RefusedError(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
            self.seen.add(body["lora_name"])
            self._adapters[body["lora_name"]] = _deltas(Path(body["lora_path"]))
        elif path == "/v1/unload_lora_adapter":
            if self._adapters.pop(body["lora_name"], None) is None:
                raise RefusedError(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        elif path == "/collective_rpc":
            self._reload(body)
        elif path == "/reset_prefix_cache":
            return {"success": True}
        elif path == "/update_weight_version":
            self._version = body["new_version"]
        return {"message": "done"}

    def _reload(self, body: dict) -> None:
        assert body["method"] == "reload_weights"
        assert not self._going.is_set(), "weights change while requests run"
        file = Path(body["kwargs"]["weights_path"]) / "model.safetensors"
        if not file.exists():
            raise RefusedError(500, f"Call to collective_rpc method failed: Repo id must be ...: '{file.parent}'")
        self._whole.load_state_dict(load_file(file), strict=False)

    def _completions(self, body: dict) -> object:
        deltas = {} if body["model"] == "tiny" else self._adapters.get(body["model"])
        if deltas is None:
            raise RefusedError(404, f"The model `{body['model']}` does not exist.")
        weights = dict(self._whole.named_parameters())
        for name, delta in deltas.items():
            weights[name].add_(delta)
        try:
            choices = [self._choice(body, index) for index in range(body.get("n", 1))]
        finally:
            for name, delta in deltas.items():
                weights[name].sub_(delta)
        return {"object": "text_completion", "model": body["model"], "choices": choices}

    def _choice(self, body: dict, index: int) -> dict:
        prompt = body["prompt"]
        if len(prompt) == CONTEXT:
            raise RefusedError(400, "max_tokens must be at least 1, got 0.")
        if len(prompt) + body["max_tokens"] > CONTEXT:
            raise RefusedError(400, f"This model's maximum context length is {CONTEXT} tokens.")
        if body["temperature"] == 0 and body.get("n", 1) > 1:
            raise RefusedError(400, f"n must be 1 when using greedy sampling, got {body['n']}.")
        if len(body.get("stop", ())) > MAX_STOPS:
            raise RefusedError(400, f"List should have at most {MAX_STOPS} items after validation")
        asked = body.get("prompt_logprobs")
        if (asked or 0) > MAX_LOGPROBS:
            raise RefusedError(400, f"Requested prompt logprobs of {asked}, which is greater than {MAX_LOGPROBS}")
        scored = None
        if asked is not None:
            read = self._logits(prompt).log_softmax(-1)
            scored = [None, *(_likeliest(row, token, asked) for row, token in zip(read, prompt[1:], strict=False))]
        random = torch.Generator().manual_seed(body.get("seed", 0) + index)
        tokens, logprobs, reason = [], [], "length"
        while len(tokens) < body["max_tokens"] and reason == "length":
            raw = self._logits([*prompt, *tokens])[-1]
            drawn_from = _narrowed(raw, body)
            token = int(torch.multinomial(drawn_from.softmax(-1), 1, generator=random))
            tokens.append(token)
            logprobs.append(float((drawn_from if self.processed else raw).log_softmax(-1)[token]))
            ends = token == self._whole.config.eos_token_id and not body.get("ignore_eos")
            reason = "stop" if ends or token in body.get("stop_token_ids", []) else "length"
        return {
            "index": index,
            "text": "",
            "finish_reason": reason,
            "token_ids": tokens if body.get("return_token_ids") else None,
            "logprobs": {"token_logprobs": logprobs} if body.get("logprobs") is not None else None,
            "prompt_logprobs": scored,
        }

    def _logits(self, tokens: list[int]) -> Tensor:
        return self._whole(torch.tensor([tokens])).logits[0].float()


def _deltas(folder: Path) -> dict[str, Tensor]:
    """What a PEFT adapter adds to each weight."""
    if not folder.exists():
        raise RefusedError(404, f"Loading lora failed: No adapter found for {folder}")
    settings = json.loads((folder / "adapter_config.json").read_text())
    if settings["r"] > MAX_RANK:
        raise RefusedError(500, f"LoRA rank {settings['r']} is greater than max_lora_rank {MAX_RANK}.")
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = settings["lora_alpha"] / settings["r"]
    found = {}
    for name, down in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            found[f"{layer}.weight"] = scale * tensors[name.replace("lora_A", "lora_B")] @ down
    return found


def _narrowed(raw: Tensor, body: dict) -> Tensor:
    if body["temperature"] == 0:
        return torch.where(raw == raw.max(), raw, -math.inf)
    logits = raw / body["temperature"]
    if body.get("top_k"):
        logits = torch.where(logits >= logits.topk(body["top_k"]).values[-1], logits, -math.inf)
    return logits


def _likeliest(row: Tensor, token: int, count: int) -> dict[str, dict]:
    order = row.argsort(descending=True).tolist()
    return {str(i): {"logprob": float(row[i]), "rank": order.index(i) + 1} for i in {*order[:count], token}}
