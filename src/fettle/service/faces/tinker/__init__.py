"""The Tinker wire protocol: programs written for the public ``tinker`` SDK train here, unchanged but for their address.

``docs/tinker.md`` says how to point one here, and which parts of the protocol there are.
"""

from fettle.service.faces.tinker.router import routes

__all__ = ["routes"]
