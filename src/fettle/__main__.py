"""``python -m fettle``: the command, where a launcher such as torchrun wants a module."""

from fettle.cli import main

if __name__ == "__main__":
    main()
