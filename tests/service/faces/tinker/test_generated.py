"""The Python of ``tinker_wire.proto`` is what its compiler makes of it."""

import subprocess
import sys
from pathlib import Path

from tinker.proto import tinker_public_pb2 as public

import fettle.service.faces.tinker
from fettle.service.faces.tinker import tinker_wire_pb2 as wire

FOLDER = Path(fettle.service.faces.tinker.__file__).parent


def test_generating_again_changes_nothing(tmp_path):
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", "tinker_wire.proto"], check=True)
    for name in ("tinker_wire_pb2.py", "tinker_wire_pb2.pyi"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()


def test_every_message_is_laid_out_as_the_public_sdk_has_it():
    ours, theirs = wire.DESCRIPTOR, public.DESCRIPTOR
    assert fields(ours) == fields(theirs)


def fields(file):
    """Of every message: the number, type and name of each field."""
    found = {
        name: {value.name: value.number for value in enum.values} for name, enum in file.enum_types_by_name.items()
    }
    for name, message in file.message_types_by_name.items():
        found[name] = [
            (f.number, f.name, f.type, f.is_repeated, f.has_presence, f.message_type and f.message_type.name)
            for f in sorted(message.fields, key=lambda field: field.number)
        ]
    return found
