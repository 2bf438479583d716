"""Every request there is, and who may make it. ``test_authorization`` asks a real service, and keeps the page of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Who = Literal["anybody", "whoever has the address", "any key", "its owner", "an admin"]

ACTORS = ("no key", "a wrong key", "another tenant's key", "an admin's key", "its owner's key")
LET_IN = "yes"

EXPECTED: Mapping[Who, tuple[str, ...]] = MappingProxyType(
    {
        "anybody": (LET_IN,) * 5,
        "whoever has the address": (LET_IN,) * 5,
        "any key": ("401", "401", LET_IN, LET_IN, LET_IN),
        "its owner": ("401", "401", "404", "404", LET_IN),
        "an admin": ("401", "401", "403", LET_IN, "403"),
    }
)
"""What each of ``ACTORS`` is answered. An admin is another tenant like any other where things have owners."""


@dataclass(frozen=True)
class Row:
    """One request."""

    who: Who
    body: Any = None
    at: Mapping[str, str] = field(default_factory=dict)
    """What stands in the address, where it is not the thing of that name."""
    query: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    """What a status stands for: a protocol may say a refusal in its own way."""


def anybody(**more: Any) -> Row:
    return Row("anybody", **more)


def with_key(body: Any = None, **more: Any) -> Row:
    return Row("any key", body, **more)


def owned(body: Any = None, **more: Any) -> Row:
    return Row("its owner", body, **more)


def by_admin(body: Any = None, **more: Any) -> Row:
    return Row("an admin", body, **more)


TOKENS = [65, 66, 67, 68, 69, 70]
NATIVE_BATCH = {
    "data": [{"tokens": TOKENS, "loss_mask": [0, 1, 1, 1, 1, 1]}],
    "loss": {"type": "causal_lm"},
}
TINKER_BATCH = {
    "data": [
        {
            "model_input": {"chunks": [{"type": "encoded_text", "tokens": TOKENS}]},
            "loss_fn_inputs": {
                "target_tokens": {"data": TOKENS, "dtype": "int64", "shape": [6]},
                "weights": {"data": [1.0] * 6, "dtype": "float32", "shape": [6]},
            },
        }
    ],
    "loss_fn": "cross_entropy",
}
TINKER_PROMPT = {"chunks": [{"type": "encoded_text", "tokens": TOKENS}]}
PARAMS = {"max_tokens": 2}
RUN, SPARE = {"run_id": "{run}"}, {"run_id": "{spare}"}
SAVED = {"run_id": "{run}", "kind": "weights", "name": "one"}
DELETED = {"run_id": "{run}", "kind": "weights", "name": "two"}
SAMPLER = {"sampler_id": "{sampler}"}
MODEL = {"run": "{model}"}
KEPT = {"run": "{model}", "kind": "weights", "name": "one"}
GONE = {"run": "{model}", "kind": "weights", "name": "two"}
CHECKPOINT = "{run}/weights/one"
NUMBERED = {"incarnation": "{incarnation}", "seq": "{seq}"}

OPERATION: Mapping[str, Row] = MappingProxyType(
    {
        "GET /openapi.json": anybody(),
        "GET /healthz": anybody(),
        "GET /readyz": anybody(),
        "GET /metrics": by_admin(),
    }
)

NATIVE: Mapping[str, Row] = MappingProxyType(
    {
        "POST /v1/runs": with_key({"base_model": "tiny", "lora": {"rank": 2}}),
        "GET /v1/runs": with_key(),
        "GET /v1/runs/{run_id}": owned(at=RUN),
        "POST /v1/runs/{run_id}/operations": owned({**NUMBERED, "call": {"type": "undo"}}, at={"run_id": "{numbered}"}),
        "POST /v1/runs/{run_id}/attach": owned(at=RUN),
        "POST /v1/runs/{run_id}/pause": owned(at=RUN),
        "POST /v1/runs/{run_id}/resume": owned(at=RUN),
        "GET /v1/runs/{run_id}/metrics": owned(at=RUN),
        "POST /v1/runs/{run_id}/metrics": owned({"rows": [{"step": 1, "reward": 0.5}]}, at=RUN),
        "GET /v1/runs/{run_id}/episodes": owned(at=RUN),
        "POST /v1/runs/{run_id}/episodes": owned(
            {"episodes": [{"step": 1, "messages": [{"role": "user", "content": "a"}], "reward": 1.0}]}, at=RUN
        ),
        "POST /v1/runs/{run_id}/forward_backward": owned(NATIVE_BATCH, at=RUN),
        "POST /v1/runs/{run_id}/forward": owned(NATIVE_BATCH, at=RUN),
        "POST /v1/runs/{run_id}/optim_step": owned({"learning_rate": 1e-3}, at=RUN),
        "POST /v1/runs/{run_id}/save_state": owned({"name": "three"}, at=RUN),
        "POST /v1/runs/{run_id}/load_state": owned({"checkpoint": CHECKPOINT}, at=RUN),
        "POST /v1/runs/{run_id}/sampler": owned({}, at=RUN),
        "POST /v1/runs/{run_id}/sample": owned({"prompts": [TOKENS], "max_tokens": 2}, at=RUN),
        "GET /v1/runs/{run_id}/checkpoints": owned(at=RUN),
        "POST /v1/runs/{run_id}/complete": owned(at=SPARE),
        "GET /v1/futures/{id}": owned(at={"id": "{future}"}, query="?wait=30"),
        "POST /v1/futures/{id}/acknowledge": owned(at={"id": "{future}"}),
        "POST /v1/acknowledgements": with_key({"ids": ["{future}"]}),
        "DELETE /v1/futures/{id}": owned(at={"id": "{other_future}"}),
        "POST /v1/samplers": with_key({"model": "tiny"}),
        "GET /v1/samplers/{sampler_id}": owned(at=SAMPLER),
        "POST /v1/samplers/{sampler_id}/sample": owned(
            {"requests": [{"prompt": TOKENS, "params": PARAMS}]}, at=SAMPLER
        ),
        "POST /v1/samplers/{sampler_id}/stream": owned({"prompt": TOKENS, "params": PARAMS}, at=SAMPLER),
        "POST /v1/samplers/{sampler_id}/logprobs": owned({"sequences": [TOKENS]}, at=SAMPLER),
        "POST /v1/samplers/{sampler_id}/score": owned({"sequences": [TOKENS]}, at={"sampler_id": "{scorer}"}),
        "POST /v1/samplers/{sampler_id}/embed": owned({"sequences": [TOKENS]}, at=SAMPLER),
        "POST /v1/samplers/{sampler_id}/read": owned({"requests": [{"tokens": TOKENS}]}, at=SAMPLER),
        "DELETE /v1/samplers/{sampler_id}": owned(at={"sampler_id": "{scorer}"}),
        "GET /v1/checkpoints": with_key(),
        "GET /v1/checkpoints/{run_id}/{kind}/{name}": owned(at=SAVED),
        "GET /v1/checkpoints/{run_id}/{kind}/{name}/files": owned(at=SAVED),
        "GET /v1/checkpoints/{run_id}/{kind}/{name}/files/{file}": owned(at={**SAVED, "file": "manifest.json"}),
        "GET /v1/checkpoints/{run_id}/{kind}/{name}/archive": owned(at=SAVED),
        "PUT /v1/checkpoints/{run_id}/{kind}/{name}/ttl": owned({"ttl_seconds": 3600}, at=SAVED),
        "POST /v1/checkpoints/{run_id}/{kind}/{name}/publish": owned(at=DELETED),
        "DELETE /v1/checkpoints/{run_id}/{kind}/{name}/publish": owned(at=SAVED),
        "DELETE /v1/checkpoints/{run_id}/{kind}/{name}": owned(at={**SAVED, "name": "four"}),
        "POST /v1/tokenize": with_key({"text": "one two"}),
        "POST /v1/detokenize": with_key({"tokens": [TOKENS]}),
        "POST /v1/chat_template": with_key({"messages": [{"role": "user", "content": "one"}]}),
        "POST /v1/embeddings": with_key({"input": ["one two"]}),
        "GET /v1/models/{name}/files": with_key(at={"name": "tiny"}),
        "GET /v1/models/{name}/files/{file}": with_key(at={"name": "tiny", "file": "tokenizer.json"}),
        "GET /v1/capabilities": with_key(),
    }
)

ADMINISTRATION: Mapping[str, Row] = MappingProxyType(
    {
        "GET /v1/usage": with_key(),
        "GET /v1/balance": with_key(),
        "GET /v1/keys": by_admin(),
        "POST /v1/keys": by_admin({"tenant": "three"}),
        "DELETE /v1/keys/{key_id}": by_admin(at={"key_id": "{key}"}),
        "GET /v1/audit": by_admin(),
        "GET /v1/tenants": by_admin(),
        "POST /v1/tenants/{tenant}/payments": by_admin({"amount": 1, "key": "a"}, at={"tenant": "three"}),
    }
)

OPENAI: Mapping[str, Row] = MappingProxyType(
    {
        "GET /v1/models": with_key(),
        "GET /v1/models/{name}": with_key(at={"name": "tiny"}),
        "POST /v1/completions": with_key({"model": "tiny", "prompt": "one", "max_tokens": 2}),
        "POST /v1/chat/completions": with_key(
            {"model": "tiny", "messages": [{"role": "user", "content": "one"}], "max_tokens": 2}
        ),
    }
)

TINKER: Mapping[str, Row] = MappingProxyType(
    {
        "POST /api/v1/client/config": with_key({}),
        "POST /api/v1/client/dynamic_config": with_key({}),
        "GET /api/v1/healthz": with_key(),
        "GET /api/v1/get_server_capabilities": with_key(),
        "POST /api/v1/telemetry": with_key({}),
        "POST /api/v1/create_session": with_key({"tags": [], "sdk_version": "0.38.0"}),
        "POST /api/v1/session_heartbeat": owned({"session_id": "{session}"}, instead={"410": "404"}),
        "POST /api/v1/create_model": owned(
            {"session_id": "{session}", "model_seq_id": 7, "base_model": "tiny", "lora_config": {"rank": 2}},
            instead={"400": "404"},
        ),
        "POST /api/v1/get_info": owned({"model_id": "{model}"}),
        "POST /api/v1/forward_backward": owned({"model_id": "{model}", "forward_backward_input": TINKER_BATCH}),
        "POST /api/v1/forward": owned({"model_id": "{model}", "forward_input": TINKER_BATCH}),
        "POST /api/v1/optim_step": owned({"model_id": "{model}", "adam_params": {"learning_rate": 1e-3}}),
        "POST /api/v1/save_weights": owned({"model_id": "{model}", "path": "three"}),
        "POST /api/v1/save_weights_for_sampler": owned({"model_id": "{model}", "path": "three"}),
        "POST /api/v1/save_weights_external": owned({"model_id": "{model}", "path": "three"}),
        "POST /api/v1/load_weights": owned({"model_id": "{model}", "path": "tinker://{model}/weights/one"}),
        "POST /api/v1/create_sampling_session": owned(
            {"session_id": "{session}", "sampling_session_seq_id": 7, "base_model": "tiny"}
        ),
        "GET /api/v1/samplers/{sampler}": owned(at={"sampler": "{session}:sample:0"}),
        "POST /api/v1/join_sampling_session": owned({"sampling_session_id": "{session}:sample:0"}),
        "POST /api/v1/asample": owned(
            {
                "sampling_session_id": "{session}:sample:0",
                "seq_id": 5,
                "prompt": TINKER_PROMPT,
                "sampling_params": PARAMS,
            }
        ),
        "POST /api/v1/retrieve_future": owned({"request_id": "{request}"}, instead={"410": "404"}),
        "POST /api/v1/retrieve_futures": with_key(
            {"target": {"sampling_session_id": "{session}:sample:0"}, "timeout": 0}
        ),
        "POST /api/v1/cancel_future": with_key({"request_id": "{request}"}),
        "GET /api/v1/training_runs": with_key(),
        "GET /api/v1/training_runs/{run}": owned(at=MODEL),
        "GET /api/v1/training_runs/{run}/checkpoints": owned(at=MODEL),
        "GET /api/v1/checkpoints": with_key(),
        "PUT /api/v1/training_runs/{run}/checkpoints/{kind}/{name}/ttl": owned({"ttl_seconds": 3600}, at=KEPT),
        "POST /api/v1/training_runs/{run}/checkpoints/{kind}/{name}/publish": owned(at=GONE),
        "DELETE /api/v1/training_runs/{run}/checkpoints/{kind}/{name}/publish": owned(at=KEPT),
        "DELETE /api/v1/training_runs/{run}/checkpoints/{kind}/{name}": owned(at={**KEPT, "name": "four"}),
        "POST /api/v1/weights_info": owned({"tinker_path": "tinker://{model}/weights/one"}),
        "GET /api/v1/sessions": with_key(),
        "GET /api/v1/sessions/{session}": owned(),
        "GET /api/v1/training_runs/{run}/checkpoints/{kind}/{name}/external_weights_urls": owned(at=KEPT),
        "GET /api/v1/external_weights/{ticket}/{file}": Row("whoever has the address", at={"file": "manifest.json"}),
        "POST /api/v1/sessions/{session}/finish": owned({"reason": {"type": "success"}}),
    }
)

CONSOLE: Mapping[str, Row] = MappingProxyType(
    {
        "GET /sign-in": anybody(),
        "GET /static/{name}": anybody(at={"name": "console.css"}),
        "GET /": with_key(),
        "GET /parts/runs": with_key(),
        "GET /runs/{run_id}": owned(at=RUN),
        "GET /parts/runs/{run_id}/status": owned(at=RUN),
        "GET /parts/runs/{run_id}/series": owned(at=RUN),
        "POST /runs/{run_id}/state": owned({"state": "paused"}, at=RUN),
        "GET /runs/{run_id}/samples": owned(at=RUN),
        "GET /parts/runs/{run_id}/samples": owned(at=RUN),
        "POST /runs/{run_id}/checkpoints": owned({"id": CHECKPOINT, "act": "withdraw"}, at=RUN),
        "GET /checkpoints/{id}/download": owned(at={"id": CHECKPOINT}),
        "GET /queue": with_key(),
        "GET /parts/queue": with_key(),
        "GET /usage": with_key(),
        "GET /keys": by_admin(),
        "POST /keys": by_admin({"tenant": "four"}),
        "POST /keys/{key_id}/revoke": by_admin(at={"key_id": "{other_key}"}),
        "POST /sign-out": with_key({}),
        "POST /sign-in": anybody(body={"key": "{owner_key}"}),
    }
)

SECTIONS: Mapping[str, Mapping[str, Row]] = MappingProxyType(
    {
        "Operation": OPERATION,
        "Native": NATIVE,
        "Administration": ADMINISTRATION,
        "OpenAI": OPENAI,
        "Tinker": TINKER,
        "Console": CONSOLE,
    }
)

ROWS: Mapping[str, Row] = MappingProxyType({name: row for rows in SECTIONS.values() for name, row in rows.items()})


def plain(path: str) -> str:
    """The address without the types of its parts."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def filled(template: Any, things: Mapping[str, Any]) -> Any:
    """A body or an address with the things that it names; a text that is nothing but a name is the thing itself."""
    if isinstance(template, Mapping):
        return {name: filled(value, things) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, things) for value in template]
    if not isinstance(template, str):
        return template
    if found := re.fullmatch(r"{(\w+)}", template):
        return things.get(found[1], template)
    return re.sub(r"{(\w+)}", lambda found: str(things.get(found[1], found[0])), template)


HEAD = """# Who may do what

Written by `tests/service/test_authorization.py` from what a real service answered; a request that is not in this table
fails the tests. `yes`: let in. 401: no key, or a wrong one. 404: there is no such thing, which is also said of what is
another tenant's, in the same words. 403: the key is good, and is no admin's. An admin's key opens the operator's
requests, and nothing of other tenants. The console knows who has signed in with a key, and leads everybody else to its
sign-in page, which is a 401 here. Checkpoints that their owner has published may be read by every tenant.
A new run's id that another tenant has is answered with a 409 that says no more than that it is taken.
"""


def page(answers: Mapping[str, tuple[str, ...]]) -> str:
    """What a service answered, as a page."""
    parts = [HEAD]
    for title, rows in SECTIONS.items():
        parts += [f"\n## {title}\n", f"| Request | {' | '.join(ACTORS)} |", "|---" * (1 + len(ACTORS)) + "|"]
        parts += [f"| `{name}` | {' | '.join(answers[name])} |" for name in rows]
    return "\n".join(parts) + "\n"
