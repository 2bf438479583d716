"""Single questions to a service, put before there is an event loop: a mistake in the address is told at once."""

import os
import shutil
from pathlib import Path

import httpx

from fettle.client.capabilities import capabilities_of
from fettle.client.kept import SCHEME, id_of, kept
from fettle.client.transport import ANSWERING, CONNECTING, error_of, headers, tree_of, unreachable, verification
from fettle.engine.base import Capabilities
from fettle.errors import NotFoundError
from fettle.tracking.atomic import write_atomically

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "config.json",
)
"""What a tokenizer may consist of; each has some of them."""


def capabilities(url: str, key: str | None) -> Capabilities:
    """What the service's engine can do.

    Raises:
        UnreachableError: there is no service at that address.
    """
    with _connected(url, key) as http:
        return capabilities_of(tree_of(_said(http, "/v1/capabilities")))


def copy_tokenizer(url: str, key: str | None, model: str, *, to: Path) -> None:
    """Copy the tokenizer of a model that the service serves, or of a checkpoint that it keeps, into a new folder.

    Raises:
        NotFoundError: the service has no such model.
    """
    saved = model.startswith(SCHEME) or kept(model) is not None
    place = f"/v1/checkpoints/{id_of(model)}/files" if saved else f"/v1/models/{model}/files"
    files: dict[str, bytes] = {}
    with _connected(url, key) as http:
        for name in TOKENIZER_FILES:
            try:
                files[name] = _said(http, f"{place}/{name}").content
            except NotFoundError as error:
                missing = error
    if not files:
        raise missing
    scratch = to.with_name(f".{to.name}.{os.getpid()}.partial")
    scratch.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        write_atomically(scratch / name, contents)
    if to.is_dir():  # somebody else was faster
        shutil.rmtree(scratch)
    else:
        scratch.rename(to)


def _connected(url: str, key: str | None) -> httpx.Client:
    timeout = httpx.Timeout(ANSWERING, connect=CONNECTING)
    return httpx.Client(base_url=url, headers=headers(key), timeout=timeout, verify=verification(url))


def _said(http: httpx.Client, path: str) -> httpx.Response:
    try:
        response = http.get(path)
    except httpx.TransportError as error:
        raise unreachable(str(http.base_url).rstrip("/"), error) from error
    if not response.is_success:
        raise error_of(response)
    return response
