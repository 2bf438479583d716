"""What the catalogue holds: plain values, made anew when they change. Times are in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from fettle.broker.samplers import BrokerSampler
from fettle.config import PolicySpec

RunState = Literal["active", "paused", "completed", "failed"]
CheckpointKind = Literal["weights", "sampler_weights"]


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns things."""

    id: str
    created_at: datetime
    balance: Decimal
    """What is left of what was paid in; says nothing where the service has no prices."""


@dataclass(frozen=True, slots=True)
class Key:
    """What proves who calls. The secret itself is kept nowhere."""

    id: str
    tenant: str
    name: str
    admin: bool
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    requests_per_minute: int | None = None
    """Of all kinds together; None: only what holds for every key."""
    last_used_at: datetime | None = None
    """To the minute."""


@dataclass(frozen=True, slots=True)
class Run:
    """One policy being trained, with its settings, owner and state."""

    id: str
    tenant: str
    name: str
    model: str
    """The served name of its base model."""
    spec: PolicySpec
    state: RunState
    created_at: datetime
    changed_at: datetime
    """Of its state."""
    reason: str = ""
    """Why it is in this state, where somebody else than its owner put it there."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    checkpoint: str = ""
    """The id of the checkpoint it began from; empty: from the base model."""


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """Weights that can be drawn from, as they are kept."""

    id: str
    tenant: str
    model: str
    """The served name of the base model."""
    checkpoint: str
    """Its id; empty where a base model or a pin is drawn from."""
    weights: str
    """What ``Broker.draw`` takes."""
    created_at: datetime
    session: str = ""


@dataclass(frozen=True, slots=True)
class SamplerEntry(SamplerRow):
    """Weights that can be drawn from."""

    live: BrokerSampler = field(kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """A checkpoint of a run. Its id is ``<run>/<kind>/<name>``."""

    id: str
    tenant: str
    run: str
    kind: CheckpointKind
    name: str
    model: str
    """The served name of the base model."""
    spec: PolicySpec
    path: str
    """Its folder here."""
    created_at: datetime
    optimizer: bool = False
    """Whether training can go on from it as if it had never stopped."""
    policy_version: int = 0
    digest: str = ""
    """Of its manifest; empty until it is written."""
    nbytes: int = 0
    public: bool = False
    """Whether every tenant may read it."""
    expires_at: datetime | None = None
    stored_at: datetime | None = None
    """When all of it was in the artifact store; None: it is in the state folder alone."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """What one client does from its start to its end."""

    id: str
    tenant: str
    created_at: datetime
    key: str = ""
    """What its client calls it, so that asking twice makes one."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one kind of work of one run came to in a day."""

    tenant: str
    run: str
    """Empty for draws from weights that belong to no run."""
    kind: str
    day: str
    """``2026-01-31``, in UTC."""
    operations: int
    microseconds: int
    """Measured computing."""
    tokens: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One change of a tenant's balance."""

    tenant: str
    key: str
    """The same key never counts twice."""
    kind: Literal["opening", "payment", "charge"]
    amount: Decimal
    """What is added to the balance; a charge is below 0."""
    at: datetime
    note: str = ""


AuditEvent = Literal[
    "key_made",
    "key_first_used",
    "key_refused",
    "key_revoked",
    "foreign_access",
    "forbidden",
    "rate_limited",
    "run_made",
    "checkpoint_published",
    "checkpoint_unpublished",
    "checkpoint_deleted",
    "payment",
]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Something that an operator may have to account for. It never holds a secret."""

    at: datetime
    event: AuditEvent
    tenant: str = ""
    key: str = ""
    """The id of the key."""
    subject: str = ""
    """The id of what it was done to."""
    address: str = ""
    """Where the caller is."""
    times: int = 1
    """How often the same happened within a second."""
