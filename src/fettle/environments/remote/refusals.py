"""Why a call was not answered: one kind of error, which a status, a fault on a stream and a sentence are made of."""

import logging
import secrets
from collections.abc import Mapping
from types import MappingProxyType

import grpc

from fettle.environments.remote import environment_pb2 as pb

logger = logging.getLogger(__name__)

STATUS: Mapping["pb.FaultCode", grpc.StatusCode] = MappingProxyType(
    {
        pb.FAULT_CODE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        pb.FAULT_CODE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
        pb.FAULT_CODE_SESSION: grpc.StatusCode.NOT_FOUND,
        pb.FAULT_CODE_TURN: grpc.StatusCode.FAILED_PRECONDITION,
        pb.FAULT_CODE_TASKS: grpc.StatusCode.FAILED_PRECONDITION,
        pb.FAULT_CODE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        pb.FAULT_CODE_DRAINING: grpc.StatusCode.UNAVAILABLE,
        pb.FAULT_CODE_ENVIRONMENT: grpc.StatusCode.ABORTED,
        pb.FAULT_CODE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
        pb.FAULT_CODE_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""Each code as unary calls tell it."""

PASSING = frozenset({pb.FAULT_CODE_FULL, pb.FAULT_CODE_DRAINING})
"""Codes after which the same call may succeed later."""


class Refusal(Exception):  # noqa: N818  as errors of this package are named
    """A call that is not answered: a code, one sentence, and when to ask again."""

    def __init__(self, code: "pb.FaultCode", message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def fault(self) -> pb.Fault:
        """As a stream tells it."""
        return pb.Fault(code=self.code, message=self.message, retry_after_ms=round(1000 * self.retry_after))


def failed(what: str, error: Exception) -> Refusal:
    """What a caller is told of an error that is not ours.

    Its words stay here, in the log: an environment's may hold the answer of a task.
    """
    number = secrets.token_hex(4)
    logger.error("fault %s: %s failed", number, what, exc_info=error)
    why = f"{what} failed with {type(error).__name__}; the server's log tells more, as fault {number}"
    return Refusal(pb.FAULT_CODE_ENVIRONMENT, why)


def refusal(fault: pb.Fault) -> Refusal:
    """What a stream has told."""
    return Refusal(fault.code, fault.message, retry_after=fault.retry_after_ms / 1000)
