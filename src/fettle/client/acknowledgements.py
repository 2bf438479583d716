"""What was read here of a service's answers, which it need not keep any longer."""

import asyncio
import logging
from typing import TYPE_CHECKING

from fettle.errors import FettleError

if TYPE_CHECKING:
    from fettle.client.transport import Transport

logger = logging.getLogger(__name__)

TOGETHER_S = 1.0
"""Seconds for which those that are read are gathered, and told in one request."""
MOST = 1000
"""That one request tells."""


class Acknowledgements:
    """Tells a service, beside everything else, which answers have arrived. What it does not hear of grows old there."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport
        self._read: list[str] = []
        self._telling: asyncio.Task[None] | None = None

    def add(self, promise: str) -> None:
        """The answer of a promise is here, and nobody else asks for it."""
        self._read.append(promise)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._gathered())

    async def tell(self) -> None:
        """Tell of all that were read so far."""
        while self._read:
            told, self._read = self._read[:MOST], self._read[MOST:]
            try:
                await self._transport.post("/v1/acknowledgements", {"ids": told}, patience=0.0)
            except FettleError as error:
                logger.debug("%d answers stay at the service until they are old: %s", len(told), error.message)

    async def close(self) -> None:
        """Tell of those that were read last."""
        if self._telling is not None:
            self._telling.cancel()
        await self.tell()

    async def _gathered(self) -> None:
        await asyncio.sleep(TOGETHER_S)
        await self.tell()
