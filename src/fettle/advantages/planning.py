"""Hierarchy-aware credit assignment: more of the credit to the tokens in which a solution is planned.

Wang et al., 2025 (arXiv:2509.03646). Axes: T tokens of one sequence.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from fettle.advantages.finite import Doubles, one_a_token
from fettle.errors import ConfigError
from fettle.types import Floats


def planning_credit(advantages: Floats | Doubles, planning_mask: Floats, *, alpha: float = 0.2) -> Floats:
    """``A'_t = A_t + α |A_t|`` on planning tokens, ``A'_t = A_t`` elsewhere, each [T].

    What succeeds is amplified there, and what fails is softened: at α = 0.2, 1 becomes 1.2 and -1 becomes -0.8. With
    no planning token the advantages are what they were, to the bit.

    Raises:
        LossInputError: an advantage is not a finite number, or the arrays are not of one length.
    """
    A = one_a_token("advantage", advantages, planning_mask)
    return np.where(planning_mask > 0, A + alpha * np.abs(A), A).astype(np.float32)


def planning_mask(pieces: Sequence[str], phrases: Sequence[str]) -> Floats:
    """1 at each token [T] of which some character lies in one of the ``phrases``, 0 elsewhere.

    ``pieces`` are the texts of the tokens, which together are the text that is searched; a token that has no text of
    its own (a special one, or part of a character) has an empty piece. Phrases are the paper's strategic grams, of
    three to five words. Capitals do not matter, nor how much space stands between words, and a phrase is found only
    where no word runs on at either end. Occurrences may overlap.

    Raises:
        ConfigError: a phrase has no words.

    >>> planning_mask(["Let", "'s try", " a", "nother  way", "."], ["let's try another way"]).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0]
    """
    # Folding may lengthen a text, but it folds each character by itself, and so does not cross from piece to piece.
    folded = [piece.casefold() for piece in pieces]
    token_of = np.repeat(np.arange(len(folded)), [len(piece) for piece in folded])
    mask = np.zeros(len(folded), np.float32)
    for phrase in phrases:
        for start, end in _occurrences(phrase, "".join(folded)):
            mask[token_of[start:end]] = 1
    return mask


def _occurrences(phrase: str, text: str) -> Iterator[tuple[int, int]]:
    words = [re.escape(word) for word in phrase.casefold().split()]
    if not words:
        raise ConfigError(f"the planning phrase {phrase!r} has no words: write what marks a plan, or leave it out")
    # Looking ahead without moving on finds occurrences that overlap.
    spaced = r"\s+".join(words)
    for match in re.finditer(rf"(?<!\w)(?=({spaced})(?!\w))", text):
        yield match.span(1)
