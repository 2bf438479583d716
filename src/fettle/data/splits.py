"""Splits: what is kept for evaluation, chosen by what is asked, so that nothing stands on both sides."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key
from fettle.types import Message


class Answer(Protocol):
    """Anything that answers a prompt."""

    @property
    def prompt(self) -> Sequence[Message]:
        """What is asked."""
        ...


A = TypeVar("A", bound=Answer)


def split(
    conversations: Sequence[Conversation], *, heldout: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """``(training, held out)``, each in the order given.

    What is held out are the ``heldout`` questions with the lowest keyed hashes, so that adding or moving rows
    changes little. Conversations that ask the same are on one side; of those held out, the first stands for all.

    Raises:
        DataError: there are too few different questions to hold some out and still to train.
    """
    asked = [question(conversation[:-1]) for conversation in conversations]
    kept = _kept(asked, "conversations", heldout=heldout, seed=seed)
    training = [talk for talk, text in zip(conversations, asked, strict=True) if text not in kept]
    first = dict(zip(reversed(asked), reversed(conversations), strict=True))
    return training, [first[text] for text in dict.fromkeys(asked) if text in kept]


def split_by_prompt(answers: Sequence[A], *, heldout: int, seed: int) -> tuple[list[A], list[A]]:
    """``(training, held out)``, each in the order given, for preferences, ratings and episodes.

    Prompts are held out as :func:`split` holds out questions, each with everything that answers it.

    Raises:
        DataError: there are too few different prompts to hold some out and still to train.
    """
    asked = [question(answer.prompt) for answer in answers]
    kept = _kept(asked, "rows", heldout=heldout, seed=seed)
    sides: tuple[list[A], list[A]] = ([], [])
    for answer, text in zip(answers, asked, strict=True):
        sides[text in kept].append(answer)
    return sides


def question(prompt: Sequence[Message]) -> str:
    """What is asked, with case and white space levelled."""
    return "\n".join(f"{message.role}: {' '.join(message.content.casefold().split())}" for message in prompt)


def _kept(asked: Sequence[str], what: str, *, heldout: int, seed: int) -> frozenset[str]:
    """The questions with the lowest keyed hashes."""
    different = dict.fromkeys(asked)
    if len(different) < heldout + 1:
        raise DataError(
            f"heldout is {heldout}, but the {what} ask only {len(different)} different things, and one must be"
            " left to train on: add some or hold out fewer"
        )
    return frozenset(sorted(different, key=lambda text: key(seed, "heldout", text))[:heldout])
