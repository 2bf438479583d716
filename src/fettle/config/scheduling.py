"""How a service shares its engine: turns, what may wait, and how draws are joined."""

from typing import Annotated, Literal

from pydantic import Field

from fettle.config.base import Frozen


class Scheduling(Frozen):
    """Whose turn it is, and how much may wait. It never changes what an operation comes to."""

    quantum_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens a tenant computes before the next one's turn; a call that has begun is finished all the same."""
    waiting_operations: Annotated[int, Field(ge=1)] = 4096
    """Training calls one tenant may have waiting; further ones are told to come again later."""
    waiting_draws: Annotated[int, Field(ge=1)] = 4096
    """Draws one tenant may have waiting."""
    waiting_mib: Annotated[int, Field(ge=1)] = 2048
    """Memory of what all tenants together have waiting."""
    tenant_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """The most of each of these that one tenant may hold while others wait."""
    gather: Literal["turn", "free"] = "turn"
    """What shares a batch: ``turn``, draws issued in one turn of the event loop, so that a loop in this process gets
    the same batches every time; ``free``, all draws that wait when the engine comes to them, as a service wants it."""
    gather_tokens: Annotated[int, Field(ge=1)] = 65536
    """Prompt and completion tokens that ``free`` joins into one batch, which training waits for."""
