"""The generated code is what its .proto file says, and old frames are read for ever."""

import importlib.util
from pathlib import Path

from fettle.environments.remote import environment_pb2 as pb

ROOT = Path(__file__).parents[3]
HERE = ROOT / "src" / "fettle" / "environments" / "remote"

FIRST_STEP = bytes.fromhex(
    "0a1030313233343536373839616263646566100 11a0f0a09617373697374616e741202686f".replace(" ", "")
)
"""A StepRequest as the first version wrote it."""


def test_making_the_code_anew_gives_no_difference(tmp_path):
    spec = importlib.util.spec_from_file_location("proto", ROOT / "scripts" / "proto.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write(tmp_path)
    for name in ("environment_pb2.py", "environment_pb2.pyi"):
        made = tmp_path / "fettle" / "environments" / "remote" / name
        assert made.read_text() == (HERE / name).read_text(), f"{name} is out of date: make proto"


def test_a_frame_of_the_first_version_is_read_as_it_was_meant_and_written_again_to_the_byte():
    request = pb.StepRequest.FromString(FIRST_STEP)
    assert (request.session_id, request.turn) == ("0123456789abcdef", 1)
    assert (request.action.role, request.action.content) == ("assistant", "ho")
    assert request.SerializeToString(deterministic=True) == FIRST_STEP


def test_the_services_have_every_method_that_was_promised():
    methods = {
        name: {each.name for each in service.methods} for name, service in pb.DESCRIPTOR.services_by_name.items()
    }
    assert pb.DESCRIPTOR.package == "fettle.environment.v1"
    assert methods["EnvironmentService"] >= {
        *("Reset", "Step", "BatchStep", "StreamStep", "ListEnvironments", "HealthCheck"),
    }
    assert methods["ModelService"] >= {"Generate", "BatchGenerate", "StreamGenerate", "HealthCheck"}
