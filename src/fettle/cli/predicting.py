"""The composition root of the predictor: a service of one model in KServe's ModelServer."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial

from kserve import ModelServer

from fettle.cli.serving import opened
from fettle.config import ServiceConfig
from fettle.config.load import load_as
from fettle.deploy.kserve.predictor import Predictor
from fettle.service.connections import bound
from fettle.service.models import Models

EVERYWHERE = "0.0.0.0"
"""Where KServe's server listens."""


def run(model: str, name: str, port: int, overrides: Sequence[str]) -> None:
    """Answer until a signal ends it. Who may ask is the cluster's to say, and there are no keys.

    Raises:
        FettleError: the model cannot be read, a setting is wrong, or the port is taken.
    """
    with tempfile.TemporaryDirectory() as state:
        given = {"models": [{"name": name, "path": model}], "state": state, "auth": "none"}
        laid_over = [f"{key}={json.dumps(value)}" for key, value in given.items()]
        settings = load_as(ServiceConfig, None, [*overrides, *laid_over])
        # Told now, in one sentence: once the server runs, its traceback comes first.
        Models(settings.models)
        bound(EVERYWHERE, port).close()
        server = ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=False)
        server.start([Predictor(name, partial(opened, settings))])
