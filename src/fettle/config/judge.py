"""Models that are asked for their opinion: where they answer, and what they are asked."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fettle.config.base import Frozen
from fettle.config.keys import key_from

JUDGE = "judge"
"""The reward that a model gives."""
RUBRIC = "Is the reply correct, and does it answer what was asked? Length and style count for nothing."
DEBATE_RUBRIC = (
    "Who argues better from the evidence? What is not in the evidence counts against whoever claims it; length, "
    "confidence and style count for nothing."
)


class Judge(Frozen):
    """A model behind an endpoint that speaks OpenAI's chat completions."""

    url: str
    """The endpoint up to and with its version: ``http://127.0.0.1:8700/v1``."""
    model: str
    """Its name there."""
    key_env: str | None = None
    """The environment variable that holds the key; a recipe never holds it itself."""
    logprobs: bool = True
    """Whether to ask for the likeliest tokens, and weigh the verdicts by them; false for an endpoint that refuses."""
    max_tokens: Annotated[int, Field(ge=1)] = 512
    """Most tokens in an answer, reasons included."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of the judge's own words."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Most questions that are with it at once."""
    seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long one answer may take."""
    attempts: Annotated[int, Field(ge=1)] = 5
    """How often a question is put to an endpoint that is busy, or fails, or cannot be reached."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("should be an endpoint's address, such as http://127.0.0.1:8700/v1")
        return url.rstrip("/")

    def key(self) -> str | None:
        """The key, from where the recipe says that it is.

        Raises:
            ConfigError: it is not there.
        """
        return key_from(self.key_env, named="judge.key_env")


class JudgedReward(Frozen):
    """What a judge is asked of a reply: a whole number from 1 up, which becomes a reward from 0 to 1."""

    judge: Judge
    """Who is asked."""
    rubric: str = RUBRIC
    """What a good reply is."""
    scores: Annotated[int, Field(ge=2, le=9)] = 5
    """The greatest score."""
    show_answer: bool = True
    """Show the judge the task's own answer, if it has one."""


def check_judge(reward: str, judge: JudgedReward | None) -> None:
    """Refuses a reward of that name without somebody to ask, and the reverse.

    Raises:
        ValueError: it is so.
    """
    if (reward == JUDGE) != (judge is not None):
        raise ValueError(
            f"judge says who is asked, and reward is {reward}: use reward: {JUDGE}, or leave judge out"
            if judge is not None
            else f"reward is {JUDGE}, and nothing says who is asked: set judge"
        )


class RuleJudge(Frozen):
    """Counts what is quoted: word for word from the evidence, in quotation marks."""

    type: Literal["rule"] = "rule"
    quotes: Annotated[int, Field(ge=1)] = 1
    """Quotes that are heard in one argument; further ones are passed over."""
    invented: Annotated[float, Field(ge=0)] = 1.0
    """What a quote costs that is not in the evidence."""


class ModelJudge(Frozen):
    """Asks a model, once in either order; where its two answers differ, nobody has won."""

    type: Literal["model"] = "model"
    judge: Judge
    """Who is asked."""
    rubric: str = DEBATE_RUBRIC
    """What a good argument is."""
