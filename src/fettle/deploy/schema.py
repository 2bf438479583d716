"""The part of KServe's InferenceService that Fettle writes, field by field; whatever else is there is a mistake."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from fettle.deploy.serving import Label, Quantity
from fettle.errors import ConfigError

API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"

Text = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Resources(_Strict):
    limits: dict[Literal["cpu", "memory", "nvidia.com/gpu"], Quantity]
    requests: dict[Literal["cpu", "memory", "nvidia.com/gpu"], Quantity]


class _Format(_Strict):
    name: Text


class _Model(_Strict):
    model_format: _Format
    storage_uri: Text
    args: list[str]
    resources: _Resources


class _Variable(_Strict):
    name: Text
    value: str


class _ContainerPort(_Strict):
    container_port: Port
    name: Text
    protocol: Literal["TCP"]


class _Get(_Strict):
    path: Annotated[str, Field(pattern="^/")]
    port: Port


class _Probe(_Strict):
    http_get: _Get
    period_seconds: Annotated[int, Field(ge=1)]
    failure_threshold: Annotated[int, Field(ge=1)]


class _Security(_Strict):
    allow_privilege_escalation: bool
    run_as_non_root: bool


class _Container(_Strict):
    name: Literal["kserve-container"]
    image: Text
    args: list[str]
    env: list[_Variable]
    ports: list[_ContainerPort]
    readiness_probe: _Probe
    resources: _Resources
    security_context: _Security


class _Predictor(_Strict):
    min_replicas: Annotated[int, Field(ge=0)]
    max_replicas: Annotated[int, Field(ge=1)]
    canary_traffic_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    model: _Model | None = None
    containers: Annotated[list[_Container], Field(min_length=1, max_length=1)] | None = None

    @model_validator(mode="after")
    def _one_server(self) -> "_Predictor":
        if (self.model is None) == (self.containers is None):
            raise ValueError("a predictor has either a model or a container")
        return self


class _Spec(_Strict):
    predictor: _Predictor


class _Metadata(_Strict):
    name: Label
    namespace: Label
    labels: dict[str, str]


class _InferenceService(_Strict):
    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: _Metadata
    spec: _Spec


def check_schema(manifest: Any) -> None:
    """Refuse a manifest with a field that is missing, unknown or of another type.

    Raises:
        ConfigError: it has one.
    """
    try:
        _InferenceService.model_validate(manifest)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'it'}: {_said(fault['msg'])}" for fault in error.errors()]
        raise ConfigError(f"the manifest is no {KIND} that Fettle writes ({'; '.join(faults)})") from error


def _said(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
