"""What every test stands on: no network, one thread, no display."""

import gc
import os
import signal

# Before anything imports torch or transformers, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ["SSL_CERT_DIR"] = os.devnull  # clients of plain addresses need not read whom to trust, 30 ms each time
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; bits repeat only for a fixed number
os.environ.pop("FETTLE_AS", None)  # set where the suite is started through ./run

import pytest
from hypothesis import settings

# Where a shell began the suite in the background, Ctrl-C is ignored, and would be by all that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is imported for tests stays: as it comes in, it is never looked through for what could go.
gc.disable()

# A failure must come back on the next run, and a busy machine is no failure.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """From here on waste is collected, without another look at what was imported."""
    gc.freeze()
    gc.enable()
    on_ray = [item for item in session.items if item.name == "test_what_runs_on_ray"]
    if on_ray and os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        on_ray[0].module.begin()
