"""What runs in a sandbox's workers: the standard library is all there is."""
