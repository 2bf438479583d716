"""A model's replies to messages, whole or as they are drawn, for ``ModelService``."""

import asyncio
from pathlib import Path

from fettle.broker.samplers import BrokerSampler
from fettle.chat import Template, load_tokenizer
from fettle.config import SamplingParams
from fettle.engine import Engine
from fettle.engine.base import SampleRequest, Watch
from fettle.environments.remote.generation import Generation, Heard
from fettle.errors import ModelError
from fettle.types import Message

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class SampledReplies:
    """Satisfies ``Generator``: what a sampler draws after a prompt in the model's own template."""

    def __init__(self, name: str, sampler: BrokerSampler, template: Template) -> None:
        self.name = name
        self._sampler = sampler
        self._template = template
        self._ends = tuple(sorted(template.end_token_ids))

    @classmethod
    async def of(cls, engine: Engine, model: str) -> "SampledReplies":
        """Of a model's folder, by whose name callers know it.

        Raises:
            ModelError: it cannot be read, or the engine cannot be listened to.
        """
        template = Template(load_tokenizer(model))
        sampler = await engine.sampler(model)
        if not isinstance(sampler, BrokerSampler):
            raise ModelError(f"{model} is sampled elsewhere: name a model of this machine")
        return cls(Path(model).name, sampler, template)

    async def generate(
        self, messages: tuple[Message, ...], params: SamplingParams, heard: Heard | None = None
    ) -> Generation:
        """One reply; of its text, what is certain is told as it is drawn."""
        prompt = self._template.prompt(messages)
        drawing = params.model_copy(update={"stop_token_ids": self._ends})
        watch = None if heard is None else self._watch(heard)
        completion = (await self._sampler.drawn(SampleRequest(prompt, 1, drawing, watch)))[0]
        await asyncio.sleep(0)  # what was drawn last is told first
        return Generation(self._template.reply(completion.tokens), completion)

    def _watch(self, heard: Heard) -> Watch:
        """Told of tokens by the thread that draws; what they say is told in this loop."""
        loop = asyncio.get_running_loop()
        tokens: list[int] = []
        told = 0

        def tell(token: int) -> None:
            nonlocal told
            tokens.append(token)
            text = self._template.reply(tokens).content
            if len(text) > told and not text.endswith(UNFINISHED):
                heard(text[told:])
                told = len(text)

        def watched(_: int, token: int, __: float) -> bool:
            loop.call_soon_threadsafe(tell, token)
            return True

        return watched
