"""What is computed for whom, counted as it is done and written every second; and what that leaves of a balance.

What is promised: an operation is never counted twice. One that was answered and not yet written when the process was
killed is counted at the next start, as long as the broker still holds its answer; of what clients had acknowledged in
that last second, and of draws, nothing is charged.
"""

import asyncio
import dataclasses
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

from fettle.broker import Broker, Promise
from fettle.broker.promises import open_id, operation_id
from fettle.config import Prices
from fettle.errors import BalanceError, NotFoundError
from fettle.service.accounts import Accounts, Batch, Mark, opening, payment
from fettle.service.entries import LedgerRow, UsageRow
from fettle.service.prices import cost
from fettle.service.store import Store

MOST_REMEMBERED = 100_000
"""Draws that are known to be counted: whoever asks for one again is given the same promise."""
MOST_MISSING = 1000
"""Operations in a row that a broker no longer knows, after which none is looked for: clients acknowledged them."""
OPENING = Mark(-1, 0)
NOTHING = Mark(-2, 0)

Told = Callable[[str], Awaitable[object]]


class Usage:
    """Measured computing and tokens by tenant, run, kind of work and day, and, where there are prices, the balances."""

    def __init__(self, store: Store, prices: Prices | None = None) -> None:
        self.accounts = Accounts(store)
        self.prices = prices
        self._balances: dict[str, Decimal] = {}
        self._unopened: set[str] = set()
        self._empty: set[str] = set()
        self._rows: dict[tuple[str, str, str, str], UsageRow] = {}
        self._marks: dict[str, Mark] = {}
        self._fresh_marks: dict[str, Mark] = {}
        self._watched: set[str] = set()
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._writer = uuid.uuid4().hex
        self._written = 0
        self._unwritten: Batch | None = None
        self._turn = asyncio.Lock()
        self._emptied: list[Told] = []
        self._refilled: list[Told] = []

    async def load(self) -> None:
        """Take up what is known from before."""
        self._marks = await self.accounts.marks()
        self._balances = await self.accounts.balances()
        if self.prices is not None:
            self._unopened = set(self._balances) - await self.accounts.opened()
            await self._open_accounts()

    def when_emptied(self, told: Told) -> None:
        """Have ``told`` called with a tenant whose balance is used up."""
        self._emptied.append(told)

    def when_refilled(self, told: Told) -> None:
        """Have ``told`` called with a tenant who has a balance again."""
        self._refilled.append(told)

    # Counting

    def watch(self, promise: Promise, run: str = "") -> None:
        """Count what a promise comes to, once it is done; ``run`` is what a draw is drawn from."""
        if promise.id in self._watched or self._is_counted(promise):
            return
        self._watched.add(promise.id)
        promise.when_done(lambda done: self._count(done, promise.policy or run))

    def _is_counted(self, promise: Promise) -> bool:
        if not promise.policy:
            return promise.id in self._counted
        return _mark_of(promise.id) <= self._marks.get(promise.policy, NOTHING)

    def _count(self, promise: Promise, run: str) -> None:
        self._watched.discard(promise.id)
        if promise.seconds <= 0 or self._is_counted(promise):  # what was cancelled before it began cost nothing
            return
        if promise.policy:
            self._marks[promise.policy] = self._fresh_marks[promise.policy] = _mark_of(promise.id)
        else:
            self._remember(promise.id)
        self.add(promise.tenant, run, promise.kind, seconds=promise.seconds, tokens=promise.tokens)

    def add(self, tenant: str, run: str, kind: str, *, seconds: float, tokens: int) -> None:
        """Count work that was done; that it is told once is the matter of whoever tells it."""
        name = (tenant, run, kind, datetime.now(UTC).date().isoformat())
        row = self._rows.get(name, UsageRow(*name, operations=0, microseconds=0, tokens=0))
        self._rows[name] = dataclasses.replace(
            row,
            operations=row.operations + 1,
            microseconds=row.microseconds + round(seconds * 1e6),
            tokens=row.tokens + tokens,
        )

    def _remember(self, draw: str) -> None:
        self._counted[draw] = None
        if len(self._counted) > MOST_REMEMBERED:
            self._counted.popitem(last=False)

    def knows(self, run: str) -> bool:
        """Whether anything that a run did was ever counted."""
        return run in self._marks

    async def reconcile(self, broker: Broker) -> None:
        """Count what was answered before the process was killed and not written, as far as the broker knows it."""
        for policy, info in broker.policies().items():
            for promise in _after(broker, policy, self._marks.get(policy, NOTHING), info.incarnation):
                self.watch(promise)
        await asyncio.sleep(0)  # what is done already is told in the next turn

    # Writing

    async def flush(self) -> None:
        """Write what was counted since the last time, and tell whose balance was used up by it.

        Raises:
            StorageError: the catalogue is away; everything waits, and is written once.
        """
        async with self._turn:
            await self._open_accounts()
            while self._unwritten is not None or self._rows:
                self._unwritten = self._unwritten or self._batch()
                self._balances |= await self.accounts.write(self._unwritten)
                self._unwritten = None
            # Told in turn with payments: one that came meanwhile would else be told first, and paused for all that.
            if self.prices is not None:
                for tenant in {tenant for tenant, left in self._balances.items() if left <= 0} - self._empty:
                    await _tell(self._emptied, tenant)
                    self._empty.add(tenant)

    def _batch(self) -> Batch:
        self._written += 1
        rows, self._rows = list(self._rows.values()), {}
        marks, self._fresh_marks = self._fresh_marks, {}
        charges: defaultdict[str, Decimal] = defaultdict(Decimal)
        if self.prices is not None:
            for row in rows:
                charges[row.tenant] += cost(row, self.prices)
        charged = {tenant: amount for tenant, amount in charges.items() if amount > 0}
        return Batch(self._writer, self._written, datetime.now(UTC), rows, marks, charged)

    # Money

    def meet(self, tenant: str) -> None:
        """Give a tenant who is new here the opening balance; it is written with the next flush."""
        if self.prices is not None and tenant not in self._balances:
            self._unopened.add(tenant)
            self._balances[tenant] = self.prices.opening_balance

    def check(self, tenant: str) -> None:
        """Refuse work for a tenant whose balance is used up.

        Raises:
            BalanceError: it is.
        """
        self.meet(tenant)
        if self.prices is not None and self._balances[tenant] <= 0:
            raise BalanceError(f"the balance of {tenant} is used up: have an admin pay in, and its runs go on")

    def balance(self, tenant: str) -> Decimal:
        """What was left to a tenant when it was last written."""
        return self._balances.get(tenant, Decimal(0))

    async def statement(self, tenant: str, *, limit: int, offset: int = 0) -> tuple[Decimal, list[LedgerRow], int]:
        """The balance of a tenant, the changes that it is the sum of, newest first, and how many there are."""
        async with self._turn:
            rows, total = await self.accounts.ledger(tenant, limit=limit, offset=offset)
            return self.balance(tenant), rows, total

    async def pay(self, tenant: str, amount: Decimal, *, key: str, note: str = "") -> Decimal:
        """Enter a payment; the same key never counts twice. The balance after it."""
        self.meet(tenant)
        async with self._turn:
            await self._open_accounts()
            before = self._balances.get(tenant, Decimal(0))
            left = await self.accounts.pay(payment(tenant, amount, key=key, note=note))
            self._balances[tenant] = left
            if before <= 0 < left:
                self._empty.discard(tenant)
                await _tell(self._refilled, tenant)
        return left

    async def _open_accounts(self) -> None:
        while self._unopened and self.prices is not None:
            tenant = min(self._unopened)
            self._balances[tenant] = await self.accounts.pay(opening(tenant, self.prices.opening_balance))
            self._unopened.discard(tenant)


async def _tell(told: list[Told], tenant: str) -> None:
    for each in told:
        await each(tenant)


def _mark_of(id: str) -> Mark:
    """Where an operation stands among those of its policy."""
    rest, _, seq = id.rpartition(".")
    return OPENING if seq == "open" else Mark(int(rest.rpartition(".")[2]), int(seq))


def _after(broker: Broker, policy: str, mark: Mark, incarnation: int) -> Iterator[Promise]:
    """Operations that may have been carried out after a mark, as far as the broker knows them."""
    if mark < OPENING and (promise := _known(broker, open_id(policy))) is not None:
        yield promise
    for holder in range(max(mark.incarnation, 0), incarnation + 1):
        seq = mark.seq + 1 if holder == mark.incarnation else 0
        last = seq + MOST_MISSING
        while seq < last:  # how many an earlier holder had is not told
            promise = _known(broker, operation_id(policy, holder, seq))
            seq += 1
            if promise is not None:
                last = seq + MOST_MISSING
                yield promise


def _known(broker: Broker, id: str) -> Promise | None:
    try:
        return broker.promise(id)
    except NotFoundError:
        return None
