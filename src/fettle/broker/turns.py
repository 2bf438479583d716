"""Whose turn it is: deficit round robin over the flows of those who share a worker."""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class _Flow(Generic[Item]):
    """What one of them has waiting, and the tokens it may still use before the next one's turn."""

    name: str
    credit: int
    waiting: deque[tuple[Item, int]] = field(default_factory=deque)


class Turns(Generic[Item]):
    """Items of several flows, taken turn by turn; within a flow in the order they were put, but for those put first.

    A turn lasts until its tokens are used up. An item is paid for when it is taken, and may cost more than is left: the
    flow then owes the rest, and misses turns until it is paid, so nobody gains by few large calls, nor by an empty
    queue. While nobody else waits, debts are paid at once.

    Taking costs a step for each item and one for each quantum of tokens. After Shreedhar and Varghese, 1995,
    doi:10.1145/217382.217453, who pay beforehand.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._ring: deque[_Flow[Item]] = deque()
        self._flows: dict[str, _Flow[Item]] = {}
        self._items = 0

    def __len__(self) -> int:
        return self._items

    def put(self, flow: str, item: Item, cost: int, *, first: bool = False) -> None:
        """Add an item at the end of its flow, or as its first."""
        if flow not in self._flows:
            self._flows[flow] = _Flow(flow, self._quantum)
            self._ring.append(self._flows[flow])
        waiting = self._flows[flow].waiting
        (waiting.appendleft if first else waiting.append)((item, cost))
        self._items += 1

    def take(self) -> Item:
        """The next item; there must be one."""
        while True:
            flow = self._ring[0]
            if flow.credit > 0 and flow.waiting:
                item, cost = flow.waiting.popleft()
                flow.credit -= cost
                self._items -= 1
                return item
            self._ring.popleft()
            if flow.credit > 0:
                del self._flows[flow.name]
            else:
                flow.credit += self._quantum
                self._ring.append(flow)

    def charge(self, flow: str, tokens: int) -> None:
        """What an item that was just taken turned out to cost beyond what it was put with."""
        if flow in self._flows:
            self._flows[flow].credit -= tokens
