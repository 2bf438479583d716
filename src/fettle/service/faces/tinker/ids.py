"""Ids of the Tinker API, made of each other, so that nothing has to be remembered to read them."""

import re

from fettle.errors import CheckpointError, DataError, NotFoundError

SCHEME = "tinker://"
MARK = "~"
"""Parts the id of a promise from what is to be known of its answer."""

SAMPLE = ":sample:"

KINDS = ("weights", "sampler_weights", "external_weights")

EXTERNAL = "external+"
"""What the name of a checkpoint begins with that was saved to be downloaded."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]{0,127}")
PATH = re.compile(rf"{SCHEME}(?P<run>[A-Za-z0-9:_.\-]+)/(?P<kind>{'|'.join(KINDS)})/(?P<name>{NAME.pattern})")


def model_id(session: str, number: int) -> str:
    """The id of a session's model: clients compose it themselves."""
    return f"{session}:train:{number}"


def sampler_id(session: str, number: int) -> str:
    """The id of a session's sampler."""
    return f"{session}{SAMPLE}{number}"


def session_of(id: str) -> str:
    """The session of a model or a sampler."""
    return id.partition(":")[0]


def draw_keys(sampler: str, seq: int) -> tuple[str, str]:
    """The ids that a sample's request may have: without a reading of its prompt, and with one.

    Readings are in no journal, which whoever asks for them after a restart must be told.
    """
    plain = f"{sampler}:{seq}"
    return plain, request_id(plain, "r")


def is_draw(request: str) -> bool:
    """Whether a request is for a sample."""
    return SAMPLE in request


def request_id(promise: str, said: str = "") -> str:
    """The id under which a promise's answer is asked for; ``said`` is what it needs to be told."""
    return f"{promise}{MARK}{said}" if said else promise


def read_request(id: str) -> tuple[str, str]:
    """The promise's id, and what was said."""
    promise, _, said = id.partition(MARK)
    return promise, said


def path_of(checkpoint: str) -> str:
    """How a client names a checkpoint."""
    return SCHEME + checkpoint.replace(f"/sampler_weights/{EXTERNAL}", "/external_weights/")


def checkpoint_id(path: str) -> str:
    """The checkpoint that a client names.

    Raises:
        CheckpointError: it is no path of one.
    """
    found = PATH.fullmatch(path)
    if found is None:
        raise CheckpointError(
            f"{path!r} is no path of a checkpoint: they look like {SCHEME}<model id>/weights/<name> "
            f"or {SCHEME}<model id>/sampler_weights/<name>"
        )
    return own_id(found["run"], found["kind"], found["name"])


def own_id(run: str, kind: str, name: str) -> str:
    """The id of a checkpoint by its parts.

    Raises:
        NotFoundError: there are none of that kind.
    """
    if kind == "external_weights":
        return f"{run}/sampler_weights/{EXTERNAL}{name}"
    if kind not in KINDS[:2]:
        raise NotFoundError(f"there are no checkpoints of kind {kind!r}: use {', '.join(KINDS)}")
    return f"{run}/{kind}/{name}"


def checked_name(name: str) -> str:
    """A name that a checkpoint may have.

    Raises:
        DataError: it may not.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"the name {name[:80]!r} cannot be used: letters, digits and . _ - (not first), 128 at most")
    return name
