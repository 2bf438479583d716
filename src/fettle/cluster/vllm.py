"""Samplers that are servers of vLLM, as they come: reached through their documented HTTP API, weights as files.

They are started by whoever runs them; what they must be started with is in ``docs/cluster.md``.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import numpy as np

from fettle.cluster.asked import asked
from fettle.cluster.parcel import Parcel
from fettle.cluster.seat import GoneError, SupersededError
from fettle.config import RayEngine, SamplingParams, VLLMSamplers
from fettle.config.keys import key_from
from fettle.engine.base import SampleRequest
from fettle.errors import ConfigError, ContextError, EngineError
from fettle.types import Completion, Floats, Tokens

LONGEST = 3600.0
"""Seconds that one request may take; a server that is dead is found out long before."""

IDLE = 2.0
"""Seconds for which an idle connection is kept: servers end theirs after five, and what is just sent then is lost."""

SEEDS = 2**63
"""Seeds are 64 bits with a sign there."""

NO_SUCH_PATH = "Not Found"
"""All that is said of a path that a server does not have; of a model or an adapter it says more."""


class VLLMSeat:
    """Satisfies ``Seat``. Adapters are side by side under names of their own; of whole weights there is one version."""

    def __init__(self, url: str, *, key: str | None, silent_seconds: float) -> None:
        self.name = url.rstrip("/")
        self._silent = silent_seconds
        self._http = httpx.Client(
            base_url=self.name,
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(LONGEST, connect=silent_seconds),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=IDLE),
        )
        self._turn = threading.Condition()
        self._drawing: set[object] = set()
        self._remote: dict[str, str] = {}
        self._whole: str | None = None
        self._taken = 0
        self._base = ""
        self._context: int | None = None
        self._processed = False

    def begin(self, within: float) -> None:
        """Until it answers.

        Raises:
            EngineError: it does not, in so many seconds.
        """
        until = time.monotonic() + within
        while not self.back():
            if time.monotonic() > until:
                raise EngineError(
                    f"no vLLM server answers at {self.name} within {within:g} s: start it with `vllm serve`, or "
                    "correct engine.samplers.urls"
                )
            time.sleep(min(1.0, within))

    def take(self, parcel: Parcel) -> None:
        """An adapter beside those that are there; or whole weights in the place of those that are there."""
        path = str(parcel.folder.resolve())
        if parcel.adapter:
            self._taken += 1
            name = f"{parcel.name}-{self._taken}"  # a name it had before would find what was computed under that
            self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
            self._remote[parcel.name] = name
            return
        with self._turn:  # what is drawn ends with the weights that it began with
            self._remote, self._whole = {}, None
            self._turn.wait_for(lambda: not self._drawing)
            self._post("/pause", None, mode="wait")
            try:
                self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
                if self._post("/reset_prefix_cache", None) == {"success": False}:
                    raise EngineError(f"the vLLM server {self.name} keeps what it computed with older weights")
                self._post("/update_weight_version", {"new_version": parcel.name})
            finally:
                self._post("/resume", None)
            self._remote, self._whole = {parcel.name: self._base}, parcel.name

    def drop(self, parcel: Parcel) -> None:
        """An adapter goes; whole weights stay until others come."""
        name = self._remote.pop(parcel.name, None)
        if name is not None and parcel.adapter:
            self._unload(name)

    def holds(self, name: str) -> bool:
        """Whether they are what it draws from, or one of its adapters."""
        return name in self._remote

    def draw(self, parcels: Sequence[Parcel], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Each request by itself: the server makes batches of them as they come."""
        with self._turn:
            remote = [self._remote.get(parcel.name) for parcel in parcels]
            if None in remote:
                raise SupersededError
            own = object()
            self._drawing.add(own)
        try:
            calls = [
                asked(partial(self._drawn, str(name), parcel.version, request))
                for name, parcel, request in zip(remote, parcels, requests, strict=True)
            ]
            wait(calls)
            found = [call.result() for call in calls]
            if self._whole is not None and self._get("/weight_info")["weight_version"] != self._whole:
                raise GoneError("it was started anew, and has forgotten the weights")
        finally:
            with self._turn:
                self._drawing.discard(own)
                self._turn.notify_all()
        return found

    def actor(self) -> None:
        """Its completions come whole."""

    def logprobs(self, parcel: Parcel, sequences: Sequence[Tokens]) -> list[Floats]:
        """As those of prompts."""
        name = self._remote[parcel.name]
        return [
            np.array([0.0, *(own for own, _ in self._scored(name, tokens, 0))], dtype=np.float32)
            for tokens in sequences
        ]

    def alive(self) -> bool:
        """Whether it calls itself healthy, within ``silent_seconds``."""
        try:
            return self._http.get("/health", timeout=self._silent).status_code == httpx.codes.OK
        except httpx.RequestError:
            return False

    def leave(self) -> None:
        """It holds nothing of ours any more, and nothing that it still draws is waited for."""
        self._remote, self._whole = {}, None
        self._drawing.clear()

    def back(self) -> bool:
        """Whether it is healthy; what it serves is looked up."""
        try:
            models = self._get("/v1/models")["data"] if self.alive() else []
        except GoneError:
            return False
        if not models:
            return False
        base = next(model for model in models if model.get("parent") is None)
        self._base, self._context = base["id"], base.get("max_model_len")
        self._processed = False
        return True

    def close(self) -> None:
        """Take our adapters away; the server runs on."""
        for name in self._remote.values() if self._whole is None else ():
            self._unload(name)
        self._http.close()

    def _unload(self, name: str) -> None:
        with suppress(GoneError, EngineError):  # it was started anew, and knows of none
            self._post("/v1/unload_lora_adapter", {"lora_name": name})

    def _drawn(self, name: str, version: int, request: SampleRequest) -> list[Completion]:
        params = request.params
        plain = params.temperature == 1.0 and params.top_k == 0 and params.top_p == 1.0
        if not plain and params.temperature > 0:
            self._check_processed()
        drawn = request.n if params.temperature > 0 else 1  # the likeliest are the same each time: more are refused
        scored = params.top_logprobs > 0 or (params.untempered_logprobs and not plain)
        body = {
            "model": name,
            "prompt": [int(token) for token in request.prompt],
            "n": drawn,
            "max_tokens": self._room(request, scored=scored),
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "min_p": 0.0,  # what a model's generation_config.json says is not asked for
            "repetition_penalty": 1.0,
            "stop": list(params.stop),
            "stop_token_ids": list(params.stop_token_ids),
            "ignore_eos": not params.end_tokens,
            "seed": params.seed % SEEDS,
            "logprobs": 1,
            "return_token_ids": True,
        }
        choices = sorted(self._post("/v1/completions", body)["choices"], key=lambda choice: choice["index"])
        found = [self._completion(choice, name, version, request, scored=scored) for choice in choices]
        return found * (request.n // drawn)

    def _room(self, request: SampleRequest, *, scored: bool) -> int:
        """Tokens that fit after a prompt: a server refuses what would not, rather than end with its context.

        What it scores must leave room for a token that it draws besides.
        """
        if self._context is None:
            return request.params.max_tokens
        room = self._context - len(request.prompt) - scored
        if room < 1:
            raise ContextError(
                f"a prompt has {len(request.prompt)} tokens, which leaves no room for more in the context of "
                f"{self._context} of the vLLM server {self.name}: shorten it"
            )
        return min(request.params.max_tokens, room)

    def _completion(
        self, choice: Mapping[str, Any], name: str, version: int, request: SampleRequest, *, scored: bool
    ) -> Completion:
        if choice["finish_reason"] not in ("stop", "length"):
            raise GoneError(f"it broke a completion off: {choice['finish_reason']}")
        params, tokens = request.params, [int(token) for token in choice["token_ids"]]
        logprobs = [float(each) for each in choice["logprobs"]["token_logprobs"]]
        untempered, top = None, None
        if scored:
            whole = self._scored(name, [*request.prompt, *tokens], params.top_logprobs)
            own = whole[len(request.prompt) - 1 :]
            untempered, top = [value for value, _ in own], [likeliest for _, likeliest in own]
        return Completion(
            tokens=tokens,
            logprobs=logprobs,
            stop_reason=choice["finish_reason"],
            policy_version=version,
            untempered_logprobs=(untempered or logprobs) if params.untempered_logprobs else None,
            top=top if params.top_logprobs else None,
        )

    def _scored(self, name: str, tokens: Tokens, top: int) -> list[tuple[float, list[tuple[int, float]]]]:
        """Of each token but the first: its log-probability, and the likeliest in its place with theirs."""
        body = {
            "model": name,
            "prompt": [int(token) for token in tokens],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": top,
        }
        [choice] = self._post("/v1/completions", body)["choices"]
        found = []
        for token, place in zip(tokens[1:], choice["prompt_logprobs"][1:], strict=True):
            likely = sorted((each["rank"], int(other), each["logprob"]) for other, each in place.items())
            found.append((float(place[str(int(token))]["logprob"]), [(i, float(p)) for r, i, p in likely if r <= top]))
        return found

    def _check_processed(self) -> None:
        """Where one token only may be drawn, its probability is 1, if that is what the server tells of."""
        if self._processed:
            return
        params = SamplingParams(max_tokens=4, top_k=1, end_tokens=False)
        self._processed = True
        [only] = self._drawn(self._base, 0, SampleRequest([1], 1, params))
        if min(only.logprobs) < -1e-6:
            self._processed = False
            raise ConfigError(
                f"tokens are to be drawn at a temperature or from the likeliest, and the server {self.name} tells what "
                "their probability was without that: start it with --logprobs-mode processed_logprobs"
            )

    def _get(self, path: str) -> Any:
        return self._answered("GET", path, None, {})

    def _post(self, path: str, body: Mapping[str, Any] | None, **query: str) -> Any:
        return self._answered("POST", path, body, query)

    def _answered(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        drawing = path == "/v1/completions"
        # A server that fails ends the connection: what would undo the pause, on the same one, is lost with it.
        headers = {} if drawing else {"Connection": "close"}
        try:
            answer = self._http.request(method, path, json=body, params=dict(query), headers=headers)
        except httpx.RequestError as error:
            raise GoneError(f"{path}: {error or type(error).__name__}") from error
        if answer.is_success:
            return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else None
        why = _said(answer)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR and (drawing or not self.alive()):
            raise GoneError(f"{path}: {why}")
        if answer.status_code == httpx.codes.NOT_FOUND and drawing:
            raise GoneError(f"it was started anew, and has forgotten the weights: {why}")
        if answer.status_code == httpx.codes.NOT_FOUND and why == NO_SUCH_PATH:
            raise EngineError(
                f"the vLLM server {self.name} has no {path}: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and "
                "--enable-lora for adapters, with VLLM_SERVER_DEV_MODE=1 for whole weights"
            )
        kind = ContextError if "context length" in why else EngineError
        raise kind(f"the vLLM server {self.name} refuses {path}: {why}{_mend(path)}")


def joined(settings: VLLMSamplers, engine: RayEngine) -> list[VLLMSeat]:
    """All of them.

    Raises:
        EngineError: one does not answer within ``start_seconds``.
        ConfigError: their key is not where the settings say.
    """
    key = key_from(settings.key_env, named="engine.samplers.key_env")
    seats = [VLLMSeat(url, key=key, silent_seconds=engine.silent_seconds) for url in settings.urls]
    for seat in seats:
        seat.begin(engine.start_seconds)
    return seats


def _said(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        error = body.get("error", body)
        if isinstance(error, dict):
            error = error.get("message", error.get("detail", error))
        return " ".join(str(error).split())
    except (ValueError, AttributeError):
        return f"{answer.status_code} {answer.reason_phrase}"


def _mend(path: str) -> str:
    """What to do where weights were refused; a server whose own are half replaced breaks at the next draw."""
    seen = "; it must see the folder of the checkpoints under the same name"
    return {"/v1/load_lora_adapter": seen, "/collective_rpc": f"{seen}, and has to be started anew"}.get(path, "")
