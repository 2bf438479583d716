"""Every error this package raises on purpose.

* FettleError
  + ConfigError        a setting is wrong; mend the recipe
  + DataError          a data file or a task cannot be used
  + LossInputError     a batch lacks what its loss reads, or has it in the wrong shape
  + ModelError         a model or tokenizer cannot be loaded or does not fit the work
    + ContextError     a prompt leaves no room in the model's context
  + CheckpointError    a checkpoint is missing, incomplete or altered
  + SequenceError      an operation came out of turn, or twice with different contents
  + NotFoundError      no such policy, sampler or run
  + EnvironmentFault   an environment or a reward failed
    + SandboxError     a sandbox could not do its work: never a word about the code that was to run in it
    + ScorerError      an installed scorer failed
    + ScorerTimeout    an installed scorer took too long
  + StorageError       a file could not be written
  + EngineError        the engine failed; what it holds is as it was before the call
  + AuthenticationError  no key, or one that is unknown, expired or revoked
  + ForbiddenError     the key is known, and may not do this
  + StateError         the run is paused, completed or otherwise not to be worked on
  + RefusedError       a gate was asked, and said no
  + BusyError          more work is waiting than the service takes in; ask again later
  + BalanceError       the tenant's balance is used up
  + TooLargeError      a request is larger than the service takes in
  + CancelledError     the operation was cancelled before it was carried out
  + UnreachableError   the service cannot be reached
  + TimeoutError       an answer did not come in the time that was given for it

``code`` is the stable name that crosses the wire: a client raises the class the service raised.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import ClassVar


class FettleError(Exception):
    """What every error here is; ``message`` is one sentence that names the place and the mend."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(FettleError):
    """A setting is wrong."""

    code = "config"


class DataError(FettleError):
    """A data file or a task cannot be used."""

    code = "data"


class LossInputError(FettleError):
    """A batch lacks what its loss reads, or has it in the wrong shape."""

    code = "loss_input"


class ModelError(FettleError):
    """A model or tokenizer cannot be loaded, or does not fit the work."""

    code = "model"


class ContextError(ModelError):
    """A prompt leaves no room in the model's context."""

    code = "context"


class CheckpointError(FettleError):
    """A checkpoint is missing, incomplete or altered."""

    code = "checkpoint"


class SequenceError(FettleError):
    """An operation came out of turn, or twice with different contents."""

    code = "sequence"


class NotFoundError(FettleError):
    """No policy, sampler or run of that name."""

    code = "not_found"


class EnvironmentFault(FettleError):
    """An environment or a reward failed."""

    code = "environment"


class SandboxError(EnvironmentFault):
    """A sandbox could not do its work; of the code that was to run in it this says nothing."""


class ScorerError(EnvironmentFault):
    """An installed scorer failed."""


class ScorerTimeout(EnvironmentFault):
    """An installed scorer took longer than it was given."""


class StorageError(FettleError):
    """A file could not be written."""

    code = "storage"


class EngineError(FettleError):
    """The engine failed; what it holds is as it was before the call."""

    code = "engine"


class AuthenticationError(FettleError):
    """No key, or one that is unknown, expired or revoked."""

    code = "authentication"


class ForbiddenError(FettleError):
    """The key is known, and may not do this."""

    code = "forbidden"


class StateError(FettleError):
    """The run is paused, completed or otherwise not to be worked on."""

    code = "state"


class RefusedError(FettleError):
    """A gate was asked, and said no; nothing was changed."""

    code = "refused"


class BusyError(FettleError):
    """More work is waiting than the service takes in; ``retry_after`` seconds from now there may be room."""

    code = "busy"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BalanceError(FettleError):
    """The tenant's balance is used up."""

    code = "balance"


class TooLargeError(FettleError):
    """A request is larger than the service takes in."""

    code = "too_large"


class CancelledError(FettleError):
    """The operation was cancelled before it was carried out."""

    code = "cancelled"


class UnreachableError(FettleError):
    """The service cannot be reached."""

    code = "unreachable"


class TimeoutError(FettleError):
    """An answer did not come in the time that was given for it; the operation may still be carried out."""

    code = "timeout"


def by_code(code: str) -> type[FettleError]:
    """The error class that ``code`` names; an unknown code is an ``EngineError``."""
    classes = FettleError.__subclasses__() + ModelError.__subclasses__()
    return {cls.code: cls for cls in classes}.get(code, EngineError)


OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("lr", "learning-rate"), "learning_rate"),
        **dict.fromkeys(("wd", "decay"), "weight_decay"),
        **dict.fromkeys(("max_new_tokens", "max_completion_length"), "max_tokens"),
        **dict.fromkeys(("num_generations", "rollouts", "n_samples"), "group_size"),
        **dict.fromkeys(("question", "problem", "query", "instruction", "input"), "prompt"),
        **dict.fromkeys(("solution", "target", "label", "expected", "output"), "answer"),
    }
)
"""What is written elsewhere, and the word for it here."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Which of ``known`` was probably meant: the word for it here, or one spelt much like it."""
    names = list(known)
    meant = OTHER_WORDS.get(word)
    return meant if meant in names else next(iter(get_close_matches(word, names, n=1)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or nothing.

    >>> did_you_mean("chian_sum", ["chain_sum", "gcd"])
    '; did you mean chain_sum?'
    """
    meant = nearest(word, known)
    return f"; did you mean {meant}?" if meant else ""
