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
