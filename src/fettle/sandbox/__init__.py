"""Where code runs that nobody vouches for: a policy's, and installed scorers that are given a policy's text."""

from fettle.errors import SandboxError, ScorerError, ScorerTimeout
from fettle.sandbox.outcome import Died, Ending, Isolation, Outcome, Raised, Reply, Timeout, Value
from fettle.sandbox.pool import Sandbox, isolation, sandbox

__all__ = [
    "Died",
    "Ending",
    "Isolation",
    "Outcome",
    "Raised",
    "Reply",
    "Sandbox",
    "SandboxError",
    "ScorerError",
    "ScorerTimeout",
    "Timeout",
    "Value",
    "isolation",
    "sandbox",
]
