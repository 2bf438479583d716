import pytest_asyncio

from .raw import raw_server


@pytest_asyncio.fixture
async def raw():
    async with raw_server() as server:
        yield server
