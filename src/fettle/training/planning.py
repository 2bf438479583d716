"""More of the credit to the tokens in which a reply plans what it will do."""

from collections.abc import Sequence

import numpy as np

from fettle.advantages import planning_credit, planning_mask
from fettle.chat import Template
from fettle.config import Planning
from fettle.training.credit import with_streams
from fettle.types import Datum, Floats


class Planner:
    """What planning sounds like, and how much more it counts."""

    def __init__(self, settings: Planning, template: Template) -> None:
        self._settings = settings
        self._template = template

    def credited(self, data: Sequence[Sequence[Datum]]) -> tuple[list[list[Datum]], dict[str, float]]:
        """The data with more credit on planning tokens, and the share of trained tokens that they are."""
        masks = [[self.tokens(datum) for datum in rows] for rows in data]
        trained = sum(float(datum.loss_mask.sum()) for rows in data for datum in rows)
        share = sum(float(mask.sum()) for each in masks for mask in each) / trained
        raised = [
            [self._raised(datum, mask) for datum, mask in zip(rows, each, strict=True)]
            for rows, each in zip(data, masks, strict=True)
        ]
        return raised, {"planning/share": share}

    def tokens(self, datum: Datum) -> Floats:
        """1 at each trained token [T] of a planning phrase, which stands within one reply."""
        mask = np.zeros(len(datum.tokens), np.float32)
        edges = np.flatnonzero(np.diff(datum.loss_mask, prepend=0, append=0)).tolist()
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            pieces = self._template.pieces(datum.tokens[start:end].tolist())
            mask[start:end] = planning_mask(pieces, self._settings.phrases)
        return mask

    def _raised(self, datum: Datum, mask: Floats) -> Datum:
        return with_streams(
            datum, advantages=planning_credit(datum.streams["advantages"], mask, alpha=self._settings.alpha)
        )
