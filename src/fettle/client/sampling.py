"""Text and tokens from a run, a checkpoint or a base model of a service."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fettle.client.policy import HTTPSampler
from fettle.client.transport import Transport
from fettle.config import SamplingParams
from fettle.config.arguments import settings_from
from fettle.types import Completion


class SamplingClient:
    """Something that generates, from weights that do not change under it."""

    def __init__(self, transport: Transport, sampler: HTTPSampler, model: str) -> None:
        self.sampler = sampler
        """The same as the loops have it: tokens in, tokens out."""
        self._transport = transport
        self._model = model

    async def sample(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        n: int = 1,
        return_logprobs: bool = False,
        **settings: Any,
    ) -> dict[str, Any]:
        """``n`` completions of each prompt, text or token ids; the settings are those of ``SamplingParams``.

        The result has ``outputs`` (texts), ``token_ids``, ``stop_reasons``, ``policy_version`` and, on request,
        ``logprobs``: one each for every completion, prompt after prompt.

        Raises:
            ConfigError: nothing can be drawn so.
        """
        params = settings_from("sample", SamplingParams, settings)
        drawn = await self.drawn(prompts, [params] * len(prompts), n=n)
        return await self.told(drawn, return_logprobs=return_logprobs)

    async def drawn(
        self, prompts: Sequence[str | Sequence[int]], params: Sequence[SamplingParams], *, n: int = 1
    ) -> list[Completion]:
        """Completions, prompt after prompt, each prompt with settings of its own."""
        tokens = await self._tokens(prompts)
        groups = (self.sampler.sample(prompt, n, own) for prompt, own in zip(tokens, params, strict=True))
        return [completion for group in await asyncio.gather(*groups) for completion in group]

    async def told(self, drawn: Sequence[Completion], *, return_logprobs: bool) -> dict[str, Any]:
        """What is told of completions."""
        tokens = [completion.tokens for completion in drawn]
        said = {"model": self._model, "tokens": tokens, "skip_special_tokens": True}
        found = {
            "outputs": (await self._transport.post("/v1/detokenize", said))["text"],
            "token_ids": tokens,
            "stop_reasons": [completion.stop_reason for completion in drawn],
            "policy_version": self.sampler.policy_version,
        }
        return found | ({"logprobs": [completion.logprobs for completion in drawn]} if return_logprobs else {})

    async def _tokens(self, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        told: Mapping[str, Any] = {"tokens": []}
        if texts:
            told = await self._transport.post("/v1/tokenize", {"model": self._model, "text": texts})
        read = iter(told["tokens"])
        return [next(read) if isinstance(prompt, str) else [int(token) for token in prompt] for prompt in prompts]
