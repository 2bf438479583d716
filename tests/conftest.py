"""What every test stands on: no network, one thread, no display."""

import os

# Before anything imports torch or transformers, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; bits repeat only for a fixed number
os.environ.pop("FETTLE_AS", None)  # set where the suite is started through ./run

from hypothesis import settings

# A failure must come back on the next run, and a busy machine is no failure.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")
