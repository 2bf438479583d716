"""What work on a service costs."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from fettle.config.base import Frozen


def _decimal(given: Any) -> Any:
    """A number as it was written: 0.1 in a file is a tenth."""
    return Decimal(str(given)) if isinstance(given, int | float) and not isinstance(given, bool) else given


Amount = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, max_digits=18, decimal_places=9),
    PlainSerializer(float),
]
"""Of money; the unit is whatever the operator reckons in."""


class TokenPrices(Frozen):
    """Prices of a thousand tokens, by the kind of work."""

    forward: Amount = Decimal(0)
    """Of data whose loss was computed without a gradient."""
    forward_backward: Amount = Decimal(0)
    """Of data whose gradient was computed."""
    draw: Amount = Decimal(0)
    """Of draws."""


class Prices(Frozen):
    """What a tenant is charged; its runs are paused when its balance is used up."""

    device_second: Amount = Decimal(0)
    """Price of a second of measured computing, whatever it computes."""
    thousand_tokens: TokenPrices = TokenPrices()
    """Prices of tokens, beside that of the seconds they took."""
    opening_balance: Amount = Decimal(0)
    """What a new tenant begins with."""
