"""The log: one JSON object a line, with the request's id, and never a key or a body."""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is being answered."""

REQUESTS = logging.getLogger("fettle.requests")
"""A line a request: ``extra`` holds its fields under ``request``."""


class JSONLines(logging.Formatter):
    """Where an error was raised is said, and not what it said: that may quote what somebody sent."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST.get():
            line["request"] = request
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            line["raised"] = [f"{each.filename}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)]
        return json.dumps(line, ensure_ascii=False)


def log_to(stream: Any = sys.stderr, *, level: int = logging.INFO) -> None:
    """Write everything of this package and of its server there."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONLines())
    for name in ("fettle", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
