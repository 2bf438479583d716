"""What can go wrong between a client and a server: one sentence each, and whether to ask again."""

import time
from collections.abc import Mapping
from types import MappingProxyType

import grpc

from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.gate import Backoff
from fettle.environments.remote.refusals import PASSING, STATUS, Refusal
from fettle.errors import (
    AuthenticationError,
    ConfigError,
    EnvironmentFault,
    FettleError,
    TooLargeError,
    UnreachableError,
)

AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.OK,
    }
)
"""With these a stream ends when its server does, or its connection."""

SENTENCES: Mapping[grpc.StatusCode, tuple[type[FettleError], str]] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: (
            AuthenticationError,
            "the server at {address} does not know the token: set token_variable or token_file to one that it knows",
        ),
        grpc.StatusCode.UNIMPLEMENTED: (
            ConfigError,
            f"the server at {{address}} does not speak {wire.ENVIRONMENTS.rpartition('.')[0]}: name one that "
            "fettle environments serve has started",
        ),
        grpc.StatusCode.RESOURCE_EXHAUSTED: (
            TooLargeError,
            "a message is larger than the server at {address} takes ({details}): raise its max_message_mib",
        ),
    }
)
"""What a status of grpc's own says."""

CODES = {pb.FaultCode.Name(code): code for code in STATUS}
"""As a call's metadata name them."""


class Trouble(Exception):  # noqa: N818  as errors of this package are named
    """A call that was not answered, as the client sees it."""

    def __init__(
        self,
        sentence: str,
        *,
        kind: type[FettleError] = EnvironmentFault,
        passing: bool = False,
        retry_after: float = 0.0,
        lost: bool = False,
    ) -> None:
        """``passing``: it may be answered later; ``lost``: the server no longer has the session."""
        super().__init__(sentence)
        self.sentence = sentence
        self.kind = kind
        self.passing = passing
        self.retry_after = retry_after
        self.lost = lost


class Again:
    """Whether one call is made again, and when."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None
        self._backoff = Backoff()

    def after(self, trouble: Trouble) -> float:
        """Seconds to wait.

        Raises:
            Trouble: it is not worth waiting, or there was waiting enough.
        """
        now = time.monotonic()
        self._until = self._until or now + self._patience
        if not trouble.passing or now >= self._until:
            raise trouble
        return min(self._backoff.seconds(least=trouble.retry_after), self._patience)


def refused(address: str, why: Refusal) -> Trouble:
    """What a server said."""
    at_fault = why.code in (pb.FAULT_CODE_UNKNOWN, pb.FAULT_CODE_INVALID)
    return Trouble(
        f"the server at {address}: {why.message}",
        kind=ConfigError if at_fault else EnvironmentFault,
        passing=why.code in PASSING,
        retry_after=why.retry_after,
        lost=why.code == pb.FAULT_CODE_SESSION,
    )


def ended(address: str, status: grpc.StatusCode, details: str, metadata: Mapping[str, str]) -> Trouble:
    """What a status tells that a call, or the stream it was made on, has ended with."""
    if wire.FAULT_KEY in metadata:
        after = int(metadata.get(wire.RETRY_KEY, 0)) / 1000
        return refused(
            address, Refusal(CODES.get(metadata[wire.FAULT_KEY], pb.FAULT_CODE_UNSPECIFIED), details, retry_after=after)
        )
    if status in AWAY:
        mend = "see that it runs there, and speaks TLS if this side does"
        why = f"the server at {address} cannot be reached: {mend} ({details or status.name})"
        return Trouble(why, kind=UnreachableError, passing=True)
    kind, sentence = SENTENCES.get(status, (EnvironmentFault, "the server at {address}: {details}"))
    return Trouble(sentence.format(address=address, details=details or status.name), kind=kind)
