"""The code of our protocols, made from their ``.proto`` files by the compiler of protocol buffers (grpcio-tools).

``python scripts/proto.py`` writes it beside each file.
"""

import argparse
import sys
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).parent.parent / "src"
PROTOCOLS = ("fettle/environments/remote/environment.proto",)


def write(to: Path) -> None:
    """Make the code of every protocol, in folders below ``to``.

    Raises:
        SystemExit: a file is no protocol; the compiler has said why.
    """
    for protocol in PROTOCOLS:
        if protoc.main(["protoc", f"-I{SOURCE}", f"--python_out={to}", f"--pyi_out={to}", protocol]):
            sys.exit(f"{protocol} was not compiled")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=SOURCE, help="the folder that the packages lie in")
    write(parser.parse_args().to)
