"""Backends of several processes, which hold the same policies and share out every call: on Ray, and without."""
