"""What work on a service costs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from fettle.config.base import Frozen

TokenKind = Literal["forward", "forward_backward", "draw"]
"""Work that is counted in tokens: losses computed, gradients computed, completions drawn."""


def _decimal(given: Any) -> Any:
    """A number as it was written: 0.1 in a file is a tenth."""
    return Decimal(str(given)) if isinstance(given, int | float) and not isinstance(given, bool) else given


Amount = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, max_digits=15, decimal_places=9),
    PlainSerializer(float),
]
"""Of money; the unit is whatever the operator reckons in."""


class Prices(Frozen):
    """What a tenant is charged; its runs are paused when its balance is used up."""

    device_second: Amount = Decimal(0)
    """Price of a second of measured computing, whatever it computes."""
    thousand_tokens: Mapping[TokenKind, Amount] = {}
    """Price of a thousand tokens by the kind of work, beside that of the seconds they took; kinds left out are free."""
    opening_balance: Amount = Decimal(0)
    """What a new tenant begins with."""
