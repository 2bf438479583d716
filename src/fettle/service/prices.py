"""What measured work costs, to the billionth."""

from decimal import Decimal

from fettle.config import Prices
from fettle.service.entries import UsageRow
from fettle.service.tables import NANO


def cost(row: UsageRow, prices: Prices) -> Decimal:
    """The price of a row's seconds, and of its tokens.

    >>> cost(UsageRow("t", "r", "draw", "2026-01-31", 1, 2_000_000, 500), Prices(device_second=Decimal("0.001")))
    Decimal('0.002000000')
    """
    seconds = prices.device_second * row.microseconds / 1_000_000
    per_thousand: dict[str, Decimal] = dict(prices.thousand_tokens)
    tokens = per_thousand.get(row.kind, Decimal(0)) * row.tokens / 1000
    return (seconds + tokens).quantize(NANO)
