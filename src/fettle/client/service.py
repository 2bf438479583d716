"""The client of a training service: its runs, checkpoints, models and what was used of it."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal

from fettle.client.archives import downloaded
from fettle.client.engine import HTTPEngine
from fettle.client.kept import id_of
from fettle.client.sampling import SamplingClient
from fettle.client.training import TrainingClient
from fettle.client.transport import PATIENCE, outcome
from fettle.config import AdamW, PolicySpec
from fettle.config.arguments import RUN_ARGUMENTS, settings_from
from fettle.errors import ConfigError


class ServiceClient:
    """One service, by its address and a key; an async context manager, or closed by ``close``."""

    def __init__(self, url: str, key: str | None = None, *, patience: float = PATIENCE) -> None:
        self.engine = HTTPEngine(url, key, patience=patience)
        """The same service, as loops of one's own want it."""
        self._transport = self.engine.transport
        self._training: dict[str, TrainingClient] = {}

    async def __aenter__(self) -> "ServiceClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections; runs go on being there."""
        await self.engine.close()

    async def create_run(
        self,
        base_model: str,
        *,
        lora_r: int | None = 32,
        lora_alpha: float = 32.0,
        lora_dropout: float = 0.0,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.01,
        head: Literal["value", "reward"] | None = "value",
        seed: int = 0,
        name: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """A new run of a served model, or of a checkpoint's weights, by its id. ``lora_r=None`` trains all weights.

        A ``value`` head is what ``enhanced_ppo`` learns its critic in, and a ``reward`` head is what
        ``reward_modeling`` trains; other losses do not touch a head.

        Raises:
            ConfigError: an argument cannot be what it is.
            NotFoundError: no such model is served.
        """
        lora = None if lora_r is None else {"rank": lora_r, "alpha": lora_alpha, "dropout": lora_dropout}
        given = {"model": base_model, "lora": lora, "head": head, "seed": seed}
        spec = settings_from("create_run", PolicySpec, given, RUN_ARGUMENTS)
        rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        settings_from("create_run", AdamW, rates)
        kept = {name: repr(float(value)) for name, value in rates.items()}
        run_id = f"run_{secrets.token_hex(8)}"
        said = spec.model_dump(mode="json", exclude={"model"})
        await self._transport.post(
            "/v1/runs",
            {"id": run_id, "base_model": base_model, "name": name, "metadata": {**metadata, **kept}, **said},
        )
        await outcome(self._transport, f"{run_id}.open", shared=True)
        return run_id

    def get_training_client(self, run_id: str, *, take_over: bool = True) -> TrainingClient:
        """The verbs of a run; asked for again, the same ones.

        Its first verb shuts out whoever held the run before. One that is not to ``take_over`` goes on beside that one,
        for as long as the two take turns: calls that say the same and are sent at once are taken for one.
        """
        if run_id not in self._training:
            self._training[run_id] = TrainingClient(self._transport, run_id, take_over=take_over)
        return self._training[run_id]

    async def get_sampling_client(
        self, *, run_id: str | None = None, checkpoint: str | None = None, base_model: str | None = None
    ) -> SamplingClient:
        """What draws from one of a run's weights as they are now, a checkpoint and a base model.

        Raises:
            ConfigError: none of them is given, or several are.
            NotFoundError: there is none of that name.
        """
        given = {"run_id": run_id, "checkpoint": checkpoint and id_of(checkpoint), "model": base_model}
        what = {name: value for name, value in given.items() if value is not None}
        if len(what) != 1:
            raise ConfigError("a sampling client draws from one thing: give run_id, checkpoint or base_model")
        sampler, model = await self.engine.sampler_of(what)
        return SamplingClient(self._transport, sampler, model)

    async def list_runs(self, *, limit: int = 100, offset: int = 0) -> list[dict[str, Any]]:
        """The caller's runs, newest first."""
        return list((await self._transport.get("/v1/runs", limit=limit, offset=offset))["runs"])

    async def episodes(self, run_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """What was told of a run's episodes after a step, oldest first."""
        return await self._transport.whole(f"/v1/runs/{run_id}/episodes", "episodes", after=after)

    async def list_checkpoints(
        self, run_id: str | None = None, *, limit: int = 100, offset: int = 0
    ) -> list[dict[str, Any]]:
        """The caller's checkpoints, or those of one run, newest first."""
        place = "/v1/checkpoints" if run_id is None else f"/v1/runs/{run_id}/checkpoints"
        return list((await self._transport.get(place, limit=limit, offset=offset))["checkpoints"])

    async def download_checkpoint(self, checkpoint: str, folder: str | Path) -> Path:
        """Copy a checkpoint into a new folder; what lies there then is what was saved, file by file."""
        return await downloaded(self._transport, checkpoint, Path(folder))

    async def delete_checkpoint(self, checkpoint: str) -> None:
        """Delete it for good."""
        await self._transport.request("DELETE", f"/v1/checkpoints/{id_of(checkpoint)}")

    async def set_checkpoint_ttl(self, checkpoint: str, seconds: float | None) -> dict[str, Any]:
        """Say how long from now it is kept; None keeps it until it is deleted."""
        path = f"/v1/checkpoints/{id_of(checkpoint)}/ttl"
        return dict((await self._transport.request("PUT", path, {"ttl_seconds": seconds})).tree)

    async def publish_checkpoint(self, checkpoint: str, *, public: bool = True) -> dict[str, Any]:
        """Let everybody with a key read it, or only its owner."""
        path = f"/v1/checkpoints/{id_of(checkpoint)}/publish"
        return dict((await self._transport.request("POST" if public else "DELETE", path)).tree)

    async def models(self) -> list[dict[str, Any]]:
        """The models that are served, and the checkpoints that can be drawn from by name."""
        return list((await self._transport.get("/v1/models"))["data"])

    async def usage(self) -> dict[str, Any]:
        """What was used: tokens and seconds, and what they cost where they have prices."""
        return dict(await self._transport.get("/v1/usage"))
