"""How far micro-batches are filled."""

CPU_TOKENS = 2048
"""Tokens in a micro-batch beyond which a CPU gets no faster, while activations take more memory."""


def filled(train_tokens: int, device: str, *, largest: int = 0) -> int:
    """Tokens that a micro-batch is filled to on a kind of ``device``, out of the ``train_tokens`` that it may hold.

    On a CPU no more than speeds it up, or than the ``largest`` of what is never parted needs.
    """
    return min(train_tokens, max(CPU_TOKENS, largest)) if device == "cpu" else train_tokens
