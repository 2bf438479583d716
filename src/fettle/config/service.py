"""The training service: what it serves, where it keeps things, and how much it takes in."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.durability import JournalSettings
from fettle.config.policy import BackendConfig, LocalEngine
from fettle.config.prices import Prices
from fettle.config.scheduling import Scheduling

ServedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/\-]*$", max_length=200)]
"""A name that stands in addresses as it is."""


class ServedModel(Frozen):
    """One base model that the service trains and samples."""

    name: ServedName
    """What clients call it."""
    path: Annotated[str, Field(min_length=1)]
    """A folder, or a hub name."""
    aliases: tuple[ServedName, ...] = ()
    """Further names for it, such as those that recipes written for another service use."""


class ServiceConfig(Frozen):
    """The training service."""

    models: Annotated[tuple[ServedModel, ...], Field(min_length=1)]
    """The base models that are served; the first is what ``/readyz`` tries."""
    state: Annotated[str, Field(min_length=1)] = "fettle-service"
    """Folder of everything that must outlive the process: the journal, snapshots, checkpoints, metrics."""
    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` is all of this machine's."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    """Port to listen on; 0 takes a free one."""
    public_url: Annotated[str, Field(pattern=r"^https?://[^/\s?#]+(/[^\s?#]*)?$")] | None = None
    """Where clients reach the service (``https://train.example.org``), for the links it gives them; null: links name
    the address at which the request came in."""
    database_url: str | None = None
    """SQLAlchemy's address of the catalogue (``postgresql+psycopg://...``); null: SQLite in the state folder."""
    artifacts_url: str | None = None
    """Where finished checkpoints are also kept (``s3://bucket/prefix``); null: in the state folder only."""
    engine: BackendConfig = LocalEngine()
    """The engine behind it."""
    journal: JournalSettings = JournalSettings()
    """How what was taken in outlives the process."""
    scheduling: Scheduling = Scheduling(gather="free")
    """How tenants share it."""
    auth: Literal["keys", "none"] = "keys"
    """Whether callers need a key; ``none`` is allowed on a loopback address only."""
    tls_cert: str | None = None
    """A certificate chain in PEM; with ``tls_key`` the service speaks HTTPS."""
    tls_key: str | None = None
    """The certificate's key in PEM."""
    max_body_mib: Annotated[int, Field(ge=1)] = 64
    """Largest request body, after decompression."""
    request_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """How long a request's body may take to arrive."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """Most connections at a time; further ones are refused."""
    max_rank: Annotated[int, Field(ge=1)] = 256
    """Highest rank of an adapter."""
    max_policies: Annotated[int, Field(ge=1)] = 64
    """Most runs of one tenant that are held in memory. Paused ones, and those of finished sessions, are not."""
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The most of the device's memory that one tenant's runs hold together, where it has several and keys are asked
    for; idle runs give theirs back before one is refused."""
    max_samplers: Annotated[int, Field(ge=1)] = 256
    """Most samplers of pinned weights, of all tenants, that are kept; beyond it the tenant with most loses some."""
    session_timeout_s: Annotated[float, Field(gt=0)] = 900.0
    """A session that is not heard of for so long is finished."""
    prices: Prices | None = None
    """What tenants are charged; null: usage is counted, and nothing is charged."""
    stable_reinforce: bool = True
    """Whether clients may name the loss ``stable_reinforce``, which is carried out as ``cispo``."""
    otlp_endpoint: str | None = None
    """Where traces go, over OTLP/HTTP (``http://host:4318/v1/traces``); null: nowhere."""
    trusted_proxy: tuple[str, ...] = ()
    """Addresses or networks (``10.0.0.0/8``) of proxies, whose headers say the caller's address and scheme."""

    @model_validator(mode="after")
    def _no_name_stands_for_two(self) -> "ServiceConfig":
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models name {name} twice: each name and alias stands for one model")
        return self

    @model_validator(mode="after")
    def _only_loopback_goes_without_keys(self) -> "ServiceConfig":
        if self.auth == "none" and not is_loopback(self.host):
            raise ValueError(f"auth is none, and {self.host} can be reached from outside: use keys, or host 127.0.0.1")
        return self

    @model_validator(mode="after")
    def _proxies_have_addresses(self) -> "ServiceConfig":
        for proxy in self.trusted_proxy:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"trusted_proxy names {proxy}, which is no address: write 10.0.0.1 or 10.0.0.0/8"
                ) from error
        return self

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> "ServiceConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both, or neither")
        return self


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine can reach."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())
