"""A server in a process of its own, which a test can kill: ``python -m tests.environments.remote.driver PORT``."""

import asyncio
import re
import signal
import sys
from pathlib import Path

from fettle.config import Arithmetic, EnvironmentServerConfig
from fettle.environments.remote.offers import Offer
from fettle.environments.remote.server import EnvironmentServer
from tests.environments.remote.counting import CountingSuite


async def main(port: int) -> None:
    settings = EnvironmentServerConfig(
        environments={"arithmetic": Arithmetic(digits=1, heldout=20)}, port=port, drain_seconds=20
    )
    server = EnvironmentServer(settings)
    server.offer("counting", Offer("counting", ("turns", "seed", "heldout"), lambda given: CountingSuite(**given)))
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    sys.stdout.write(f"{await server.start()}\n")
    sys.stdout.flush()
    await over.wait()
    await server.drain()
    sys.stdout.write(f"{peak_mib()}\n")


def peak_mib() -> int:
    """The most memory that this process has held; what getrusage tells is that of its parent, before it began."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak[1]) // 1024


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
