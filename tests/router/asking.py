"""What a router is asked in tests, and what there is to see of its answers."""

import logging
import time

from fettle.router.tasks import Tasks
from fettle.router.teams import Agent

AGENTS = [Agent("local", 0, 1), Agent("a", 0.01, 2), Agent("b", 0.01, 2)]
HARD = dict.fromkeys(Tasks.features, 0.5) | {"difficulty": 0.9, "stakes": 0.9, "budget": 1.0, "deadline": 1.0}
EASY = dict.fromkeys(Tasks.features, 0.5) | {"difficulty": 0.0, "stakes": 0.1, "skill": 1.0, "traffic": 1.0}


def routed(router, task, request="one", **wanted):
    return router.route(task, AGENTS, request=request, **wanted)


def alerts(caplog):
    return [record for record in caplog.records if record.levelno == logging.ERROR]


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
