"""One sandbox for all tests of this folder, with one worker: each program has walls of its own all the same."""

import asyncio

import pytest

from fettle.config import SandboxSettings
from fettle.sandbox import sandbox

SETTINGS = SandboxSettings(workers=1)


@pytest.fixture(scope="session")
def box():
    made = sandbox(SETTINGS)
    yield made
    asyncio.run(made.close())
