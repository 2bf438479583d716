"""A broker over HTTP: runs, keys, checkpoints, and the faces that clients know."""
