"""What is asked of KServe: which model, from where, on how much."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from fettle.config.base import Frozen
from fettle.errors import did_you_mean

API_VERSION, KIND = "serving.kserve.io/v1beta1", "InferenceService"

LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?")


def _label(given: str) -> str:
    if not LABEL.fullmatch(given):
        raise ValueError(f"{given} is no name in a cluster: use up to 63 of a-z, 0-9 and -, from a letter on")
    return given


def _quantity(given: str) -> str:
    if not QUANTITY.fullmatch(given):
        raise ValueError(f"{given} is no amount in a cluster: write 4Gi, 500m and the like")
    return given


Label = Annotated[str, AfterValidator(_label)]
Quantity = Annotated[str, AfterValidator(_quantity)]

FORMS: Mapping[str, str] = MappingProxyType(
    {
        "pvc": "pvc://CLAIM/FOLDER",
        "s3": "s3://BUCKET/FOLDER",
        "gs": "gs://BUCKET/FOLDER",
        "hf": "hf://OWNER/MODEL",
        "oci": "oci://REGISTRY/IMAGE",
        "https": "https://HOST/ARCHIVE",
    }
)
"""Where KServe can take a model from."""
PLACE = re.compile(r"(\w+)://[^/\s]+/\S+")


class Serving(Frozen):
    """One model that is to be served."""

    name: Label
    """Of the InferenceService, and of the model in its addresses."""
    model_uri: str
    """Where the model's folder lies, as ``fettle export`` wrote it."""
    namespace: Label = "default"
    image: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    """Of Fettle's own predictor, as ``deploy/Dockerfile`` makes it; null: KServe's server of Hugging Face models."""
    canary: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent of the requests that a changed model gets, until it gets all; null: all, once it is ready."""
    cpus: Quantity = "2"
    memory: Quantity = "4Gi"
    gpus: Annotated[int, Field(ge=0)] = 0
    replicas: Annotated[int, Field(ge=1)] = 1

    @field_validator("model_uri")
    @classmethod
    def _is_a_place_of_models(cls, given: str) -> str:
        found = PLACE.fullmatch(given)
        if found is None or found[1] not in FORMS:
            scheme, _, rest = given.partition("://")
            if form := FORMS.get(scheme):
                parts = zip(form.partition("://")[2].split("/"), (*rest.split("/", 1), ""), strict=False)
                missing = " and ".join(f"no {name}" for name, part in parts if not part)
                what = f"{missing} is named" if missing else "there is a space in it"
                raise ValueError(f"a cluster takes no model from {given}: {what}, write {form}")
            forms = ", ".join(FORMS.values())
            raise ValueError(f"a cluster takes no model from {given}: write {forms}{did_you_mean(scheme, FORMS)}")
        return given
