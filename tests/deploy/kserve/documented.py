"""What ``MLIntegration`` is documented to do, in the SDK's environment."""

import asyncio

from fettle.compat.rllm import MLIntegration, get_default_config


def deployed(kubeconfig: str, path: str, name: str, uri: str | None) -> str:
    documented = MLIntegration(get_default_config())
    return asyncio.run(documented.deploy_model(path, name, storage_uri=uri, kubeconfig=kubeconfig))
