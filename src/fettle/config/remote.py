"""Environments that another machine serves, and how it is reached."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from fettle.config.base import Frozen
from fettle.errors import ConfigError

ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}")
LAST_PORT = 65_535
LEAST_TOKEN = 32
"""Characters of a token: fewer can be guessed."""


class RemoteTLS(Frozen):
    """How a server is known, and how this side proves who it is."""

    authorities: str | None = None
    """Certificates in PEM that the server's must be signed by; null: those this machine trusts."""
    certificate: str | None = None
    """This side's own certificate chain in PEM, where the server asks for one."""
    key: str | None = None
    """The key of ``certificate``, in PEM."""

    @model_validator(mode="after")
    def _certificate_with_key(self) -> "RemoteTLS":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: set both, or neither")
        return self


def host_and_port(address: str) -> str:
    """The same, if it is an address.

    Raises:
        ValueError: it is none.
    """
    if not ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) <= LAST_PORT:
        raise ValueError(f"address is {address!r}: write a host and a port from 1 to {LAST_PORT}, as 127.0.0.1:50051")
    return address


class Remote(Frozen):
    """An environment that ``fettle environments serve`` serves, here or elsewhere."""

    type: Literal["remote"] = "remote"
    address: Annotated[str, AfterValidator(host_and_port)]
    """Host and port of the server (``127.0.0.1:50051``)."""
    environment: Annotated[str, Field(min_length=1)]
    """What the server calls it; ``fettle environments list ADDRESS`` names them."""
    settings: Mapping[str, JsonValue] = {}
    """Laid over the server's own settings of it: numbers, switches and choices; texts are for the server to say."""
    system: str | None = None
    """System message before each question; null leaves it to the server."""
    seed: int | None = None
    """Seed of the tasks; null leaves it to the server."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""
    token_variable: str | None = None
    """Environment variable that holds the token which the server asks for."""
    token_file: str | None = None
    """File that holds the token, in the place of ``token_variable``."""
    tls: RemoteTLS | None = None
    """Speak TLS; null: in the clear, which a token or an address of another machine does not allow."""
    patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for which a server that is away or full is asked again."""
    call_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Seconds that one answer may take."""

    @model_validator(mode="after")
    def _safe(self) -> "Remote":
        if self.token_variable is not None and self.token_file is not None:
            raise ValueError("token_variable and token_file are two places for one token: set one of them")
        for name in ("system", "seed", "heldout"):
            if name in self.settings:
                raise ValueError(f"settings holds {name}, which has a place of its own beside settings: write it there")
        if self.tls is None and not loopback(self.host):
            raise ValueError(f"address is {self.address}, another machine's, and tls is not set: set it (tls: {{}})")
        return self

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]")


def loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127\.\d+\.\d+\.\d+", host))


def tokens(*, variable: str | None, file: str | None) -> tuple[str, ...]:
    """The tokens that an environment variable, or each line of a file, holds; none where neither is named.

    Raises:
        ConfigError: there are none where they were said to be, or one is short or unprintable.
    """
    if variable is not None:
        place, text = f"the environment variable {variable}", os.environ.get(variable, "")
    elif file is not None:
        place = f"the file {file}"
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place}, which should hold a token, cannot be read: {error}") from error
    else:
        return ()
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not found:
        raise ConfigError(f"{place} holds no token: put one there, of {LEAST_TOKEN} characters or more")
    for token in found:
        if not re.fullmatch(rf"[\x21-\x7e]{{{LEAST_TOKEN},}}", token):
            raise ConfigError(
                f"{place} holds a token of {len(token)} characters: use {LEAST_TOKEN} or more, printable and ASCII, "
                "such as openssl rand -hex 32 gives"
            )
    return found
