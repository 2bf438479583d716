"""Every error this package raises on purpose.

* FettleError
  + ConfigError        a setting is wrong; mend the recipe
  + DataError          a data file or a task cannot be used
  + LossInputError     a batch lacks what its loss reads, or has it in the wrong shape
  + ModelError         a model or tokenizer cannot be loaded or does not fit the work
  + CheckpointError    a checkpoint is missing, incomplete or altered
  + SequenceError      an operation came out of turn, or twice with different contents
  + NotFoundError      no such policy, sampler or run
  + EnvironmentFault   an environment or a reward failed
  + StorageError       a file could not be written
  + EngineError        the engine failed; what it holds is as it was before the call

``code`` is the stable name that crosses the wire: a client raises the class the service raised.
"""

from collections.abc import Iterable
from difflib import get_close_matches
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


class StorageError(FettleError):
    """A file could not be written."""

    code = "storage"


class EngineError(FettleError):
    """The engine failed; what it holds is as it was before the call."""

    code = "engine"


def by_code(code: str) -> type[FettleError]:
    """The error class that ``code`` names; an unknown code is an ``EngineError``."""
    return {cls.code: cls for cls in FettleError.__subclasses__()}.get(code, EngineError)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or nothing.

    >>> did_you_mean("chian_sum", ["chain_sum", "gcd"])
    '; did you mean chain_sum?'
    """
    nearest = get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
