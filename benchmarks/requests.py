"""A sound request of every operation that the service has, about things that are really there.

Operations are those of the service's own OpenAPI document. A body is the document's example where it has one; those of
the other protocols stand here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any

from benchmarks.served import Tenant
from fettle.calls import Call, Forward, ForwardBackward, OptimStep, Pin, Restore, Save, Undo, call_tree
from fettle.config import PPO, AdamW, CausalLM
from fettle.frames import plain
from fettle.types import datum

TOKENS = [65, 66, 67, 68, 69, 70]
TINKER_PROMPT = {"chunks": [{"type": "encoded_text", "tokens": TOKENS}]}
TINKER_DATUM = {
    "model_input": TINKER_PROMPT,
    "loss_fn_inputs": {
        "target_tokens": {"data": TOKENS, "dtype": "int64", "shape": [6]},
        "weights": {"data": [1.0] * 6, "dtype": "float32", "shape": [6]},
    },
}
TINKER_BATCH = {"data": [TINKER_DATUM, TINKER_DATUM], "loss_fn": "cross_entropy", "loss_fn_config": {}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
DRAWING = {"max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7, "stop": ["ab", "c"], "stream": False}
DATUM = {"tokens": TOKENS, "loss_mask": [0, 1, 1, 1, 1, 1]}
RATIOS = [0, -1.0, -0.5, -1, -2, -1]
CALLS: tuple[Call, ...] = (
    ForwardBackward([datum(TOKENS, [0, 1, 1, 1, 1, 1])], CausalLM()),
    Forward([datum(TOKENS, [0, 1, 1, 1, 1, 1], advantages=RATIOS, sampling_logprobs=RATIOS)], PPO()),
    OptimStep(AdamW(learning_rate=1e-4), undoable=True),
    Undo(),
    Pin(),
    Save("by-number"),
    Restore("{run}/weights/one", optimizer=True),
)

BODIES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "POST /v1/runs/{run_id}/operations": tuple(plain(call_tree(call)) for call in CALLS),
        "POST /v1/runs/{run_id}/forward_backward": (
            {"data": [{**DATUM, "advantages": RATIOS, "sampling_logprobs": RATIOS}] * 2, "loss": {"type": "ppo"}},
        ),
        "POST /v1/completions": (
            {"model": "{model}", "prompt": "One, two,", **DRAWING, "logprobs": 2, "echo": True},
            {"model": "run:{run}", "prompt": [TOKENS, TOKENS], "max_tokens": 2, "stream": True},
        ),
        "POST /v1/chat/completions": (
            {
                "model": "{model}",
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3 ="}],
                **DRAWING,
                "logprobs": True,
                "top_logprobs": 2,
                "tools": [TOOL],
                "tool_choice": "none",
            },
            {
                "model": "{model}",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
                "max_completion_tokens": 3,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
        "POST /api/v1/create_session": (
            {"tags": ["a"], "sdk_version": "0.38.0", "user_metadata": {"a": "b"}, "display_name": "c"},
        ),
        "POST /api/v1/session_heartbeat": ({"session_id": "{session}"},),
        "POST /api/v1/sessions/{session}/finish": ({"reason": {"type": "success"}, "detail": "done"},),
        "POST /api/v1/create_model": (
            {
                "session_id": "{session}",
                "model_seq_id": 1,
                "base_model": "{model}",
                "lora_config": {"rank": 2, "seed": 1, "train_mlp": True, "train_attn": True, "train_unembed": False},
                "optimizer_config": {"type": "adamw"},
            },
        ),
        "POST /api/v1/get_info": ({"model_id": "{session}:train:0"},),
        "POST /api/v1/forward_backward": (
            {"model_id": "{session}:train:0", "forward_backward_input": TINKER_BATCH},
            {"model_id": "{session}:train:0", "seq_id": 3, "forward_backward_input": TINKER_BATCH},
        ),
        "POST /api/v1/forward": ({"model_id": "{session}:train:0", "forward_input": TINKER_BATCH},),
        "POST /api/v1/optim_step": (
            {
                "model_id": "{session}:train:0",
                "adam_params": {"learning_rate": 1e-3, "beta1": 0.9, "eps": 1e-8, "grad_clip_norm": 1.0},
            },
        ),
        "POST /api/v1/save_weights": ({"model_id": "{session}:train:0", "path": "two", "ttl_seconds": 60},),
        "POST /api/v1/save_weights_for_sampler": (
            {"model_id": "{session}:train:0", "path": "three", "overwrite": True},
            {"model_id": "{session}:train:0", "sampling_session_seq_id": 9},
        ),
        "POST /api/v1/save_weights_external": ({"model_id": "{session}:train:0", "path": "four"},),
        "POST /api/v1/load_weights": (
            {"model_id": "{session}:train:0", "path": "tinker://{run}/weights/one", "optimizer": True},
            {"session_id": "{session}", "model_seq_id": 2, "path": "tinker://{run}/weights/one"},
        ),
        "POST /api/v1/create_sampling_session": (
            {"session_id": "{session}", "sampling_session_seq_id": 7, "base_model": "{model}"},
        ),
        "POST /api/v1/join_sampling_session": ({"sampling_session_id": "{session}:sample:0"},),
        "POST /api/v1/asample": (
            {
                "sampling_session_id": "{session}:sample:0",
                "seq_id": 5,
                "prompt": TINKER_PROMPT,
                "num_samples": 2,
                "sampling_params": {
                    "max_tokens": 3,
                    "temperature": 0.7,
                    "top_k": 5,
                    "top_p": 0.9,
                    "seed": 1,
                    "stop": [7],
                },
                "prompt_logprobs": True,
                "topk_prompt_logprobs": 2,
            },
        ),
        "POST /api/v1/retrieve_future": ({"request_id": "{run}.open"},),
        "POST /api/v1/retrieve_futures": (
            {"target": {"type": "sampling_session", "sampling_session_id": "{session}:sample:0"}, "timeout": 0},
        ),
        "POST /api/v1/cancel_future": ({"request_id": "{run}.open"},),
        "POST /api/v1/weights_info": ({"tinker_path": "tinker://{run}/weights/one"},),
        "PUT /api/v1/training_runs/{run}/checkpoints/{kind}/{name}/ttl": ({"ttl_seconds": 3600},),
        "POST /api/v1/client/config": ({"sdk_version": "0.38.0"},),
        "POST /api/v1/client/dynamic_config": ({"sdk_version": "0.38.0"},),
        "POST /api/v1/telemetry": ({"session_id": "{session}", "events": [{"type": "a"}]},),
    }
)
"""By operation; ``{...}`` in a text is what the thing is called. Of operations by number, the calls."""
ENDING = ("complete", "pause", "resume", "attach", "finish")
"""Last words of addresses after which a thing is no longer as it was: another one is there for them."""
FACES: Mapping[str, float] = MappingProxyType({"native": 0.45, "tinker": 0.3, "openai": 0.2, "administration": 0.05})
"""Tags of operations in the document, and how often a request is of each."""
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Sound:
    """A request that can be carried out."""

    face: str
    method: str
    path: str
    """With names in braces."""
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


@dataclass(slots=True)
class World:
    """Things that requests can be about: a run with a checkpoint, a sampler, a session with a model and a sampler."""

    tenant: Tenant
    names: dict[str, str] = field(default_factory=dict)
    spare: dict[str, str] = field(default_factory=dict)
    """What may be ended."""
    taken: int = 0
    """How many operations by number have been taken in."""

    @property
    def runs(self) -> list[str]:
        """Those that it began itself."""
        told = (self.names["run"], self.names["numbered"], self.spare["run"], f"{self.names['session']}:train:0")
        return list(told)

    def close(self) -> None:
        """Give back what it holds."""
        for run in self.runs:
            self.tenant.tries("POST", f"/v1/runs/{run}/complete")


def world(tenant: Tenant) -> World:
    """A new one."""
    run, spare, numbered = (tenant.run(rank=2) for _ in range(3))
    for name in ("one", "gone"):
        tenant.outcome(tenant.asks("POST", f"/v1/runs/{run}/save_state", {"name": name})["id"])
    sessions = [
        tenant.asks("POST", "/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"})["session_id"]
        for _ in range(2)
    ]
    model = {"session_id": sessions[0], "model_seq_id": 0, "base_model": tenant.model, "lora_config": {"rank": 2}}
    tenant.asks("POST", "/api/v1/create_model", model)
    opening = {"session_id": sessions[0], "sampling_session_seq_id": 0, "base_model": tenant.model}
    tenant.asks("POST", "/api/v1/create_sampling_session", opening)
    names = {"run": run, "run_id": run, "kind": "weights", "name": "one", "id": f"{run}.open", "file": "manifest.json"}
    names |= {"sampler_id": tenant.sampler(), "session": sessions[0], "sampler": f"{sessions[0]}:sample:0"}
    names |= {"model": tenant.model, "numbered": numbered, "tenant": "somebody", "key_id": "none", "ticket": "none"}
    gone = {**names, "run": spare, "run_id": spare, "session": sessions[1], "sampler_id": tenant.sampler()}
    return World(tenant, names, gone)


def operations(document: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Every operation that programs ask for: method, path, and what the document says of it."""
    return [
        (method.upper(), path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
        if set(told.get("tags", ())) & set(FACES)
    ]


def bodies(method: str, path: str, told: Mapping[str, Any]) -> list[Any]:
    """The bodies that an operation may have: those that stand here, and the document's examples."""
    own = list(BODIES.get(f"{method} {path}", ()))
    examples = told.get("requestBody", {}).get("content", {}).get(JSON, {}).get("examples", {})
    return own + [example["value"] for example in examples.values() if not path.endswith("/operations")]


def sound(world: World, listed: list[tuple[str, str, Mapping[str, Any]]], rng: Random, body: Any = None) -> Sound:
    """One of them, with a body of those it may have, or with this one."""
    by_face = {face: [each for each in listed if face in each[2]["tags"]] for face in FACES}
    there = [face for face in FACES if by_face[face]]
    (face,) = rng.choices(there, [FACES[face] for face in there])
    method, path, told = rng.choice(by_face[face])
    ends = path.rpartition("/")[2] in ENDING or method == "DELETE"
    names = dict(world.spare if ends else world.names)
    if "/checkpoints/" in path and method == "DELETE":
        names |= {"run": world.names["run"], "run_id": world.names["run"], "name": "gone"}
    if "/models/{name" in path:
        names |= {"name": names["model"], "file": "tokenizer.json"}
    choices = [body] if body is not None else bodies(method, path, told)
    body = _named(rng.choice(choices), names) if choices else None
    if path.endswith("/operations"):
        names["run_id"] = names["numbered"]
        body = {"incarnation": 0, "seq": world.taken, "call": body}
    query = {each["name"]: "1" for each in told.get("parameters", ()) if each["in"] == "query" and rng.random() < 0.5}
    return Sound(face, method, path, names, query, body)


def _named(tree: Any, names: Mapping[str, str]) -> Any:
    """A body that speaks of what is there."""
    if isinstance(tree, dict):
        return {key: _named(value, names) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_named(value, names) for value in tree]
    if not isinstance(tree, str):
        return tree
    if tree in ("tiny", "qwen3-0.6b"):  # what examples call the model
        return names["model"]
    if tree == "run-1/weights/step-1":
        return f"{names['run']}/weights/one"
    return tree.format_map(names) if "{" in tree else tree
