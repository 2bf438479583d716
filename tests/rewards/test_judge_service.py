"""A service of ours as the judge's endpoint: a model that learned to doubt is read with its doubts."""

import random
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, CausalLM, Judge, JudgedReward, LocalEngine, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.errors import EnvironmentFault
from fettle.rewards.judge import JudgeReward
from fettle.types import Message, Task, datum
from tests.service.served import NAME, serving

from .endpoints import endpoint, said

TASK = Task((Message("user", "Name a colour."),), {"answer": "red"}, "test")
REPLY = "Blue, perhaps."


async def question() -> list[Message]:
    """What a judge is asked about the reply."""
    with endpoint(lambda _: said("<score>1</score>")) as served:
        await JudgeReward(JudgedReward(judge=Judge(url=served.url, model="any")))(REPLY, TASK)
    return [Message(message["role"], message["content"]) for message in served.asked[0]["messages"]]


async def doubtful(folder: Path) -> str:
    """A model that answers this one question with a 4 three times out of four, and else with a 2."""
    asked = await question()
    texts = [*(message.content for message in asked), "<score>4</score>", "<score>2</score>"] * 20
    start = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, context=512), folder / "blank", texts=texts)
    template, rng = Template(load_tokenizer(start)), random.Random("doubt")
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=folder))
    policy = await engine.create_policy(PolicySpec(model=start))
    for _ in range(50):
        verdicts = [Message("assistant", f"<score>{score}</score>") for score in rng.sample([4, 4, 4, 2], 4)]
        data = [datum(*template.conversation([*asked, verdict])) for verdict in verdicts]
        await policy.forward_backward(data, CausalLM())
        await policy.optim_step(AdamW(learning_rate=1e-2))
    saved = await policy.save("judge", optimizer=False)
    engine.close()
    return saved.path


async def test_a_service_of_ours_judges_and_its_doubts_are_told(tmp_path, monkeypatch):
    with serving(tmp_path / "state", await doubtful(tmp_path)) as served:
        monkeypatch.setenv("JUDGE_KEY", served.key)
        settings = Judge(url=f"{served.url}/v1", model=NAME, key_env="JUDGE_KEY", max_tokens=24, attempts=1)
        paid = await JudgeReward(JudgedReward(judge=settings))(REPLY, TASK)
        # The 4 alone would be 0.75; with a quarter of the weight on the 2 it is 0.625.
        assert paid["judge"] == pytest.approx(0.625, abs=0.1)
        assert paid["judge"] < 0.75
        sure = settings.model_copy(update={"logprobs": False})
        assert (await JudgeReward(JudgedReward(judge=sure))(REPLY, TASK))["judge"] == 0.75
        stranger = settings.model_copy(update={"model": "nobody"})
        with pytest.raises(EnvironmentFault, match="answered 404"):
            await JudgeReward(JudgedReward(judge=stranger))(REPLY, TASK)
