"""What clients know the service by: one room a protocol, each a set of routes over the same service."""
