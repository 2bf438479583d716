"""Splits: conversations kept for evaluation, chosen by what is asked, so that nothing stands on both sides."""

from collections.abc import Sequence

from fettle.data.conversations import Conversation
from fettle.errors import DataError
from fettle.randomness import key


def split(
    conversations: Sequence[Conversation], *, heldout: int, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """``(training, held out)``, each in the order given.

    What is held out are the ``heldout`` questions with the lowest keyed hashes, so that adding or moving rows
    changes little. Conversations that ask the same are on one side; of those held out, the first stands for all.

    Raises:
        DataError: there are too few different questions to hold some out and still to train.
    """
    asked = [question(conversation) for conversation in conversations]
    different = dict.fromkeys(asked)
    if len(different) < heldout + 1:
        raise DataError(
            f"heldout is {heldout}, but the conversations ask only {len(different)} different things, and one must be"
            " left to train on: add some or hold out fewer"
        )
    kept = set(sorted(different, key=lambda text: key(seed, "heldout", text))[:heldout])
    training = [talk for talk, text in zip(conversations, asked, strict=True) if text not in kept]
    first = dict(zip(reversed(asked), reversed(conversations), strict=True))
    return training, [first[text] for text in different if text in kept]


def question(conversation: Conversation) -> str:
    """What the last message answers, with case and white space levelled."""
    return "\n".join(f"{message.role}: {' '.join(message.content.casefold().split())}" for message in conversation[:-1])
