"""What a broker writes down, how often, and for how long."""

from typing import Annotated

from pydantic import Field

from fettle.config.base import Frozen


class JournalSettings(Frozen):
    """The journal of a broker: every operation that was taken in, and what it came to."""

    snapshot_seconds: Annotated[float, Field(gt=0)] = 20.0
    """Computing, of all policies together, that is repeated after a kill, or thereabouts: beyond it the policy with the
    most to repeat is written down whole, once that takes less than a tenth of the time that it has computed."""
    snapshot_operations: Annotated[int, Field(ge=1)] = 256
    """A policy is written down at the latest after so many operations."""
    snapshots_kept: Annotated[int, Field(ge=1)] = 2
    """Newest snapshots of a policy that are kept, with the operations between them: steps that can be replayed."""
    segment_mib: Annotated[int, Field(ge=1)] = 64
    """Size at which the next file of the journal is begun; files that nothing needs any longer are removed."""
    answers_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """How long an answer that nobody acknowledged is kept."""
    answers_mib: Annotated[int, Field(ge=1)] = 256
    """Memory of the answers that are kept; beyond it the oldest go, of whoever has most."""
