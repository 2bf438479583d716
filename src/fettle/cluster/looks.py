"""What actors have drawn so far: each is asked again once it has answered, so that one that is silent holds up none."""

from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.exceptions import RayError

from fettle.cluster.hearing import EVERY, Drawn, Enough, Look
from fettle.cluster.rank import CONTROL


def looks(actors: Callable[[], Iterable[Any]], call: str) -> Look:
    """Of the actors that there are at each look."""
    asked: dict[int, tuple[Any, Any]] = {}

    def look(enough: Enough) -> list[Drawn]:
        for actor in actors():
            if id(actor) not in asked:
                asked[id(actor)] = actor, actor.heard.options(concurrency_group=CONTROL).remote(call, enough)
        places = {answer: place for place, (_, answer) in asked.items()}
        found: list[Drawn] = []
        for answer in ray.wait(list(places), num_returns=len(places), timeout=EVERY)[0] if places else ():
            del asked[places[answer]]
            try:
                found += ray.get(answer)
            except RayError:
                continue  # it was lost, which whoever drives it finds out
        return found

    return look
