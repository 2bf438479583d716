"""A client of the plain protocol, as any other language would be one."""

import grpc
from google.protobuf import message_factory

from fettle.environments.remote import environment_pb2 as pb


class Raw:
    """Calls by name, each answered or raising ``grpc.RpcError``."""

    def __init__(self, address: str, *, credentials=None, metadata=(), service: str = "EnvironmentService") -> None:
        self.channel = (
            grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
        )
        self._metadata = metadata
        self._service = pb.DESCRIPTOR.services_by_name[service]

    def __getattr__(self, name: str):
        method = self._service.methods_by_name[name]
        answer = message_factory.GetMessageClass(method.output_type).FromString
        made = self.channel.stream_stream if method.client_streaming else self.channel.unary_unary
        call = made(f"/{self._service.full_name}/{name}", lambda request: request.SerializeToString(), answer)
        return lambda request, **given: call(request, **{"timeout": 30, "metadata": self._metadata, **given})

    def begin(self, session: str, index: int = 0, **settings) -> pb.ResetResponse:
        return self.Reset(reset(session, index, **settings))

    def say(self, session: str, turn: int, text: str) -> pb.StepResponse:
        return self.Step(step(session, turn, text))


def reset(session: str, index: int = 0, environment: str = "counting") -> pb.ResetRequest:
    chosen, task = pb.Chosen(environment_id=environment), pb.TaskReference(split=pb.SPLIT_TRAINING, index=index)
    return pb.ResetRequest(session_id=session, chosen=chosen, task=task)


def step(session: str, turn: int, text: str) -> pb.StepRequest:
    return pb.StepRequest(session_id=session, turn=turn, action=pb.Message(role="assistant", content=text))


def refused(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    return error.code(), error.details(), dict(error.trailing_metadata())
