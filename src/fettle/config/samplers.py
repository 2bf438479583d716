"""Samplers beside the ranks of a cluster: actors on it, or servers of vLLM."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fettle.config.base import Frozen


class ActorSamplers(Frozen):
    """Actors on the cluster's CPUs, each with a sampler as that of ``type: local``."""

    type: Literal["actors"] = "actors"
    count: Annotated[int, Field(ge=1)] = 1
    """How many."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads for arithmetic, and processors of the cluster, that each takes."""
    transfer: Literal["objects", "files"] = "objects"
    """How weights come to them: ``objects``, through Ray's object store; ``files``, in a folder beside the checkpoints,
    which the machines that they are on must see."""
    labels: Mapping[str, str] = {}
    """Labels of Ray of machines that may have samplers, as ``ray.io/node-group: samplers``; none: any."""
    parity: Annotated[float, Field(gt=0)] = 1e-3
    """How far a sampler's log-probabilities may be from the trainer's, in the mean over the tokens that both score
    after every update of the weights; beyond it the run stops."""


class VLLMSamplers(Frozen):
    """Servers of vLLM that are running already, with the policy's model."""

    type: Literal["vllm"] = "vllm"
    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where each is: ``http://10.0.0.7:8000``. They must see the folder of the checkpoints under the same name."""
    key_env: str | None = None
    """The environment variable that holds their key (``--api-key``)."""
    parity: Annotated[float, Field(gt=0)] = 0.05
    """How far a sampler's log-probabilities may be from the trainer's, in the mean over the tokens that both score
    after every update of the weights; beyond it the run stops. Servers compute in bf16: some 0.01 is rounding."""

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError(f"{url} should be a server's address, such as http://127.0.0.1:8000")
        if len(set(urls)) < len(urls):
            raise ValueError("names a server twice")
        return urls


Samplers = Annotated[ActorSamplers | VLLMSamplers, Field(discriminator="type")]
"""What samples beside the ranks."""
