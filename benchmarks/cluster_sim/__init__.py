"""A cluster on paper: how long a step takes, and what it waits for, from one GPU to 1 024.

``events`` is the clock and the queue, ``samplers`` what draws, ``episodes`` what is drawn, ``costs`` how long each
operation takes, ``model`` the loop over them, ``limits`` what can be said without running it, ``sweep`` the designs
that are compared, ``check`` the same model against runs that are made here.
"""
