"""The settings of a router that uses a trained policy. As it stands, no policy is loaded and nothing is written."""

from typing import Annotated

from pydantic import Field

from fettle.config.base import Frozen


class PromotionGate(Frozen):
    """What a policy has to show before a router may use it."""

    min_seeds: Annotated[int, Field(ge=2)] = 10
    """Held-out seeds that its evaluation must have; the interval of a difference is over their means."""
