"""The server: a port, the services on it, and an end that lets episodes end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message as Proto
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from fettle.config import EnvironmentServerConfig
from fettle.config.remote import tokens
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.generation import Generator, ModelService
from fettle.environments.remote.offers import Offer, Offers, offer
from fettle.environments.remote.refusals import STATUS, Refusal, failed
from fettle.environments.remote.security import Door, server_credentials
from fettle.environments.remote.service import EnvironmentService
from fettle.environments.remote.sessions import Room, Sessions
from fettle.errors import ConfigError

logger = logging.getLogger(__name__)

REAPED_EVERY = 1.0
"""Seconds between looks at leases, at most."""
GOING_SECONDS = 0.5
"""How long calls under way may take to end once there are no sessions."""
KEPT_ALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""Connections that are half open are noticed, whichever side has gone."""

Call = Callable[[Any], Awaitable[Proto]]
Stream = Callable[[AsyncIterator[Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class EnvironmentServer:
    """Serves until it is drained. Used from one event loop."""

    def __init__(self, settings: EnvironmentServerConfig, *, generator: Generator | None = None) -> None:
        self._settings = settings
        size = settings.max_message_mib * 2**20
        self.sessions = Sessions(
            Room(settings.max_sessions, settings.max_calls, settings.lease_seconds, settings.step_seconds, size)
        )
        made = {n: offer(c, max_heldout=settings.max_heldout) for n, c in settings.environments.items()}
        self._offers = Offers(made, kept=settings.max_variants)
        self._health = health.aio.HealthServicer()
        good = tokens(variable=settings.token_variable, file=settings.token_file)
        options = (
            *KEPT_ALIVE,
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", size),
            ("grpc.so_reuseport", 0),  # two servers on one port would share its callers, and neither know the other's
        )
        self._server = grpc.aio.server(interceptors=[Door(good)], options=options)
        self._names = [wire.ENVIRONMENTS]
        self._add(wire.ENVIRONMENTS, EnvironmentService(self._offers, self.sessions))
        if generator is not None:
            self._names.append(wire.MODEL)
            self._add(wire.MODEL, ModelService(generator, calls=settings.max_calls))
        self._reaping: asyncio.Task[None] | None = None

    def offer(self, name: str, environment: Offer) -> None:
        """Serve one more environment, which no settings name."""
        self._offers.offers[name] = environment

    async def start(self) -> int:
        """Make every suite once, then listen; returns the port.

        Raises:
            ConfigError: a suite cannot be made, or the address cannot be had.
        """
        for name in self._offers.offers:
            try:
                await self._offers.played(wire.chosen(name, {}))
            except Refusal as refused:
                raise ConfigError(refused.message) from refused
        add_HealthServicer_to_server(self._health, self._server)
        if self._settings.reflection:
            reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        port = self._listening()
        await self._server.start()
        for name in self._names:
            await self._health.set(name, HealthCheckResponse.SERVING)
        self._reaping = asyncio.create_task(self._reap())
        return port

    async def drain(self) -> None:
        """Begin no episode, let those under way end in the time that they have, then stop."""
        self.sessions.draining = True
        await self._health.enter_graceful_shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                await self.sessions.none_live()
        if self.sessions.live:
            logger.warning("%d episodes are cut short: the server ends", self.sessions.live)
        await self.stop()

    async def stop(self) -> None:
        """Stop now."""
        if self._reaping is not None:
            self._reaping.cancel()
        await self._server.stop(GOING_SECONDS if not self.sessions.live else 0)
        await self.sessions.close_all()

    def _listening(self) -> int:
        host = self._settings.host
        address = f"{f'[{host}]' if ':' in host else host}:{self._settings.port}"
        certificates = server_credentials(self._settings)
        try:
            if certificates is None:
                port: int = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, certificates)
        except RuntimeError as error:
            raise ConfigError(
                f"{address} cannot be listened on: is another server there, or is a certificate not what it should be?"
            ) from error
        return port

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(min(REAPED_EVERY, self._settings.lease_seconds / 4))
            self.sessions.reap()

    def _add(self, name: str, service: object) -> None:
        described = pb.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
        self._server.add_generic_rpc_handlers((handlers(described, service),))


def handlers(described: ServiceDescriptor, service: object) -> grpc.GenericRpcHandler:
    """What grpc calls for each method of a service: the function of that name, in small letters."""
    made = {}
    for method in described.methods:
        call, streams = getattr(service, _function(method.name)), method.client_streaming
        shape = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        made[method.name] = shape(
            _streamed(call) if streams else _unary(call),
            message_factory.GetMessageClass(method.input_type).FromString,
            message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(described.full_name, made)


def _function(method: str) -> str:
    """``BatchStep`` as functions are spelt: ``batch_step``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method).lstrip("_")


def _unary(call: Call) -> Callable[[Proto, grpc.aio.ServicerContext], Awaitable[Proto]]:
    async def answered(request: Proto, context: grpc.aio.ServicerContext) -> Proto:
        try:
            return await call(request)
        except Refusal as refused:
            why = refused
        except Exception as error:  # noqa: BLE001  it is told, without its words
            why = failed("the call", error)
        told = [(wire.FAULT_KEY, pb.FaultCode.Name(why.code))]
        if why.retry_after:
            told.append((wire.RETRY_KEY, str(round(1000 * why.retry_after))))
        await context.abort(STATUS[why.code], why.message, tuple(told))
        raise why  # not reached: abort raises

    return answered


def _streamed(call: Stream) -> Callable[[AsyncIterator[Proto], grpc.aio.ServicerContext], Awaitable[None]]:
    async def answered(requests: AsyncIterator[Proto], context: grpc.aio.ServicerContext) -> None:
        writing = asyncio.Lock()  # grpc takes one message at a time

        async def send(response: Proto) -> None:
            async with writing:
                await context.write(response)

        await call(requests, send)

    return answered
