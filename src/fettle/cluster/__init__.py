"""A backend on Ray: ranks that hold the same policies, share out every call, and may die."""

from fettle.cluster.backend import ClusterBackend, of_rank
from fettle.cluster.opened import opened

__all__ = ["ClusterBackend", "of_rank", "opened"]
