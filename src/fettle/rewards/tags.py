"""Answer tags: what stands between them in a reply."""

OPEN, CLOSE = "<answer>", "</answer>"


def tagged_answer(reply: str) -> str | None:
    """The text of the one ``<answer>...</answer>`` in a reply, stripped; None where there is not exactly one.

    Strict on purpose: a reply that lists several answers, or leaves a tag open, has not answered.

    >>> tagged_answer("3 and 4 make <answer> 7 </answer>")
    '7'
    """
    if reply.count(OPEN) != 1 or reply.count(CLOSE) != 1:
        return None
    before = reply.partition(CLOSE)[0]
    return before.partition(OPEN)[2].strip() if OPEN in before else None
