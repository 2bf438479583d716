"""Fettle finishes language models with reinforcement learning."""

import os

# Idle OpenMP threads spin by default, which slows two threads many times over on a busy machine.
# It is read once, when torch is first imported, so it is set here, before anything of ours imports it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = ["__version__"]
