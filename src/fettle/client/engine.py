"""An ``Engine`` that is reached over HTTP: the same calls, in the same order, with the same numbers."""

import logging
import secrets
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from fettle.client.capabilities import capabilities_of
from fettle.client.kept import SCHEME, Notes, kept, uri_of
from fettle.client.policy import HTTPPolicy, HTTPSampler
from fettle.client.tracker import RunTracker
from fettle.client.transport import PATIENCE, Transport, outcome
from fettle.config import PolicySpec
from fettle.engine.base import Capabilities
from fettle.errors import ConfigError, FettleError, NotFoundError
from fettle.frames import Tree

logger = logging.getLogger(__name__)

CLOSING = 5.0
"""Seconds for which a service that does not answer is told that it can let things go."""


class HTTPEngine:
    """Satisfies ``Engine``.

    Policies are runs of the service; ``name`` is what its console calls them. With ``checkpoints``, each checkpoint
    has a folder there with a note of where it is, and is deleted at the service once that folder is gone.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        name: str = "",
        checkpoints: Path | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.transport = Transport(url, key, patience=patience)
        self.policies: list[HTTPPolicy] = []
        """Those that were made, in order."""
        self._name = name
        self._trackers: list[RunTracker] = []
        self._notes = Notes(self.transport, checkpoints)
        self._released: deque[str] = deque()
        """Samplers that nobody here has any more, and that the service has still to be told of."""

    async def create_policy(self, spec: PolicySpec) -> HTTPPolicy:
        """A policy with the weights of a model that the service serves, or of a checkpoint that it keeps."""
        if not isinstance(spec.model, str):
            raise ConfigError(
                "policy.model describes a tiny model, and a service trains the models that it serves: name one of them"
            )
        said = spec.model_dump(mode="json", exclude={"model"})
        return await self._opened({"base_model": uri_of(spec.model) if _is_saved(spec.model) else spec.model, **said})

    async def load_policy(self, checkpoint: str, *, optimizer: bool) -> HTTPPolicy:
        """A policy as it was saved, as a run of its own."""
        return await self._opened({"checkpoint": uri_of(checkpoint), "optimizer": optimizer})

    async def sampler(self, weights: str) -> HTTPSampler:
        """A sampler of a model that the service serves, or of a checkpoint that it keeps."""
        sampler, _ = await self.sampler_of(
            {"checkpoint": uri_of(weights)} if _is_saved(weights) else {"model": weights}
        )
        return sampler

    async def sampler_of(self, what: Mapping[str, Tree]) -> tuple[HTTPSampler, str]:
        """A sampler of one of a ``model``, a ``checkpoint`` and a run by its ``run_id``, and its base model's name."""
        await self._let_go()
        made = await self.transport.post("/v1/samplers", {"id": f"sampler_{secrets.token_hex(8)}", **what})
        return self._held(made["id"], made["version"]), made["base_model"]

    async def capabilities(self) -> Capabilities:
        """What the service's engine can do."""
        return capabilities_of(await self.transport.get("/v1/capabilities"))

    async def statistics(self) -> Mapping[str, float]:
        """How the service's engine is doing."""
        told: Mapping[str, float] = (await self.transport.get("/v1/capabilities"))["statistics"]
        return told

    def tracker(self) -> RunTracker:
        """What tells the service of the first policy that is made here: its rows of metrics, and its samples."""
        tracker = RunTracker(self.transport, lambda: self.policies[0].name)
        self._trackers.append(tracker)
        return tracker

    async def close(self) -> None:
        """Give back what is still held at the service, and end the connections."""
        for tracker in self._trackers:
            await tracker.drained()
        self.transport.patience = min(self.transport.patience, CLOSING)
        try:
            for policy in self.policies:
                if not policy.closed:
                    await policy.close()
            await self._notes.swept()
            await self._let_go()
        except FettleError as error:
            logger.warning("%s may still hold what was made there: %s", self.transport.url, error.message)
        await self.transport.close()

    async def _opened(self, said: Mapping[str, Tree]) -> HTTPPolicy:
        run_id = f"run_{secrets.token_hex(8)}"
        await self.transport.post("/v1/runs", {"id": run_id, "name": self._name, **said})
        await outcome(self.transport, f"{run_id}.open", shared=True)
        policy = HTTPPolicy(self.transport, run_id, pinned=self._pinned, noted=self._notes.noted)
        self.policies.append(policy)
        return policy

    async def _pinned(self, pin: str, version: int) -> HTTPSampler:
        await self._let_go()
        return self._held(pin, version)

    def _held(self, sampler_id: str, version: int) -> HTTPSampler:
        """A sampler that the service lets go once nobody here has it."""
        sampler = HTTPSampler(self.transport, sampler_id, version)
        weakref.finalize(sampler, self._released.append, sampler_id)
        return sampler

    async def _let_go(self) -> None:
        while self._released:
            try:
                await self.transport.request("DELETE", f"/v1/samplers/{self._released.popleft()}")
            except NotFoundError:
                continue


def _is_saved(weights: str) -> bool:
    return weights.startswith(SCHEME) or kept(weights) is not None
