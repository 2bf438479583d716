"""The documented entrances of other programs, thin: :mod:`fettle.compat.signal` and :mod:`fettle.compat.mrlm`."""
