"""An engine reached over HTTP, and the client of a training service; no torch."""
