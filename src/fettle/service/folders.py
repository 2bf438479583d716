"""What clients are told in the place of this server's folders. The log has the whole sentence."""

import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from fettle.config import ServiceConfig
from fettle.service.checkpoints import FOLDER, SCHEME

logger = logging.getLogger(__name__)

FOLDERS: ContextVar["Folders | None"] = ContextVar("folders", default=None)
"""Of the service whose request is being answered."""
LOGGED = 256
"""Sentences that are known to be in the log: what is asked for again and again is written there once."""
OVERWRITTEN = re.compile(rf"({re.escape(SCHEME)}[^\s@'\"]+)@[0-9a-f]{{8}}")
"""The address of a checkpoint that took the place of another: its folder's name says so, and its own does not."""


class Folders:
    """Where a service keeps things, and what its clients call them."""

    def __init__(self, settings: ServiceConfig) -> None:
        names = dict(_names(settings))
        self._names: Mapping[str, str] = {place: names[place] for place in sorted(names, key=len, reverse=True)}
        # Whole names alone, since one may begin like another.
        places = (re.escape(place) + ("" if place.endswith("/") else r"(?![\w-])") for place in self._names)
        self._places = re.compile(rf"(?<![\w.-])(?:{'|'.join(places)})")
        self._logged: deque[str] = deque(maxlen=LOGGED)

    def told(self, sentence: str) -> str:
        """What a client is told of it."""
        named = self._places.sub(lambda found: self._names[found[0]], sentence)
        if named == sentence:
            return sentence
        if sentence not in self._logged:
            self._logged.append(sentence)
            logger.warning("told without this server's folders: %s", sentence)
        return OVERWRITTEN.sub(r"\1", named)


class Discreet:
    """A layer, within which clients are told nothing of a service's folders."""

    def __init__(self, app: ASGIApp, *, folders: Folders) -> None:
        self._app = app
        self._folders = folders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        FOLDERS.set(self._folders)  # for as long as the request's own task lasts
        await self._app(scope, receive, send)


def told(sentence: str) -> str:
    """What whoever asks is told of it."""
    folders = FOLDERS.get()
    return sentence if folders is None else folders.told(sentence)


def _names(settings: ServiceConfig) -> Iterator[tuple[str, str]]:
    """Each place as it may be written, with its name. Of two names, the later one holds."""
    home = Path.home()
    if home != Path(home.anchor):
        yield str(home), "~"
    url = settings.artifacts_url or ""
    if "/" in (store := url[url.find("://") + 3 :] if "://" in url else url):
        yield store.rstrip("/"), "the artifact store"
    given = Path(settings.state)
    for state in {given.resolve(), given} if given.is_absolute() else {given.resolve()}:
        yield str(state), "state"
        yield f"{state}/{FOLDER}/", SCHEME
    for model in reversed(settings.models):
        for path in (model.path, str(Path(model.path).resolve())):
            if "/" in path:  # a bare word may be one of the sentence's own
                yield path.rstrip("/"), model.name
