"""The calls of a policy, carried out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fettle.calls import (
    Call,
    Close,
    Create,
    Forward,
    ForwardBackward,
    Load,
    OptimStep,
    Pin,
    Restore,
    Save,
    Undo,
)
from fettle.engine.base import Backend


def carried_out(backend: Backend, policy: str, made: str, call: Call) -> Any:
    """What the call comes to; ``made`` names what it makes (a pin)."""
    return _CARRIED_OUT[type(call)](backend, policy, made, call)


_CARRIED_OUT: Mapping[type[Any], Callable[[Backend, str, str, Any], Any]] = MappingProxyType(
    {
        Create: lambda backend, policy, _, call: backend.create_policy(policy, call.spec),
        Load: lambda backend, policy, _, call: backend.load_policy(policy, call.checkpoint, optimizer=call.optimizer),
        Forward: lambda backend, policy, _, call: backend.forward(policy, call.data, call.loss),
        ForwardBackward: lambda backend, policy, _, call: backend.forward_backward(policy, call.data, call.loss),
        OptimStep: lambda backend, policy, _, call: backend.optim_step(
            policy, call.optimizer, undoable=call.undoable, empty=call.empty
        ),
        Undo: lambda backend, policy, _, call: backend.undo(policy),
        Pin: lambda backend, policy, made, call: backend.pin(policy, made)[1],
        Save: lambda backend, policy, _, call: backend.save(policy, call.name, optimizer=call.optimizer),
        Restore: lambda backend, policy, _, call: backend.restore(policy, call.checkpoint, optimizer=call.optimizer),
        Close: lambda backend, policy, _, call: backend.close_policy(policy),
    }
)
