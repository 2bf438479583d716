"""The server of environments: what it offers, to whom, and how much it takes in."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.environments import EnvironmentConfig
from fettle.config.policy import LocalEngine
from fettle.config.remote import Remote, loopback

OfferedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=100)]


class EnvironmentServerConfig(Frozen):
    """Environments, and perhaps a model, served over gRPC."""

    environments: Mapping[OfferedName, EnvironmentConfig] = {}
    """What is offered, by the name that clients ask for."""
    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs TLS, and a token or ``client_authorities``."""
    port: Annotated[int, Field(ge=0, le=65535)] = 50051
    """Port to listen on; 0 takes a free one."""
    max_sessions: Annotated[int, Field(ge=1)] = 4096
    """Episodes at once; for more than that there is no room until one ends."""
    max_calls: Annotated[int, Field(ge=1)] = 8192
    """Calls being worked on at once."""
    max_heldout: Annotated[int, Field(ge=1)] = 10_000
    """The most held-out tasks that a client may ask for."""
    max_variants: Annotated[int, Field(ge=1)] = 32
    """Settings of clients whose suites are kept at once; the one that was not used for longest goes first."""
    max_message_mib: Annotated[int, Field(ge=1, le=512)] = 16
    """Largest message, either way."""
    lease_seconds: Annotated[float, Field(ge=1, le=604_800)] = 600.0
    """A session that nobody was heard of for so long is ended. Clients of this package say that they are there."""
    step_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long an environment may take for one answer; beyond that its episode has failed."""
    drain_seconds: Annotated[float, Field(ge=0)] = 30.0
    """After SIGTERM, how long episodes under way may go on; no new one is begun."""
    token_variable: str | None = None
    """Environment variable that holds the token which callers must give."""
    token_file: str | None = None
    """File of tokens, one a line, any of which is good: two of them while callers change from one to the other."""
    tls_cert: str | None = None
    """A certificate chain in PEM; with ``tls_key`` the server speaks TLS."""
    tls_key: str | None = None
    """The certificate's key, in PEM."""
    client_authorities: str | None = None
    """Certificates in PEM; callers must show one of their own that is signed by one of these (mutual TLS)."""
    reflection: bool = False
    """Whether the server describes its services to tools such as grpcurl; behind the token, as all else is."""
    model: str | None = None
    """A model's folder, which ``ModelService`` answers from; null: there is no such service."""
    engine: LocalEngine = LocalEngine()
    """The engine of ``model``."""

    @model_validator(mode="after")
    def _safe(self) -> "EnvironmentServerConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both, or neither")
        if self.token_variable is not None and self.token_file is not None:
            raise ValueError("token_variable and token_file are two places for tokens: set one of them")
        if self.client_authorities is not None and self.tls_cert is None:
            raise ValueError("client_authorities needs TLS: set tls_cert and tls_key")
        known = self.client_authorities or self.token_variable or self.token_file
        if not loopback(self.host) and not (self.tls_cert and known):
            raise ValueError(
                f"host is {self.host}, which others can reach: set tls_cert and tls_key, and a token_file or "
                "client_authorities, or listen on 127.0.0.1"
            )
        for name, config in self.environments.items():
            if isinstance(config, Remote):
                raise ValueError(f"environments.{name} is served at {config.address} already: name that to clients")
        return self
