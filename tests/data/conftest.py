"""Files of rows, as users write them; and what it is for two data to be the same."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from fettle.types import Datum


@pytest.fixture
def written(tmp_path) -> Callable[..., str]:
    """The path of a JSON Lines file with these rows."""

    def write(*rows) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture(scope="session")
def same() -> Callable[[Datum, Datum], bool]:
    """Whether two data are equal in everything that a loss may read."""
    return equal


def equal(one: Datum, other: Datum) -> bool:
    return (
        one.streams.keys() == other.streams.keys()
        and all(np.array_equal(one.streams[name], other.streams[name]) for name in one.streams)
        and np.array_equal(one.tokens, other.tokens)
        and np.array_equal(one.loss_mask, other.loss_mask)
        and dict(one.scalars) == dict(other.scalars)
        and one.group == other.group
    )
