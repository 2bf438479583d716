"""Fettle finishes language models with reinforcement learning."""

import os

# Idle OpenMP threads spin by default, which slows two threads many times over on a busy machine. Not at all is no good
# either: waking a thread costs more than what a small model gives it to do. So they spin for a moment first.
# It is read once, when torch is first imported, so it is set here, before anything of ours imports it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"

__all__ = ["__version__"]
