"""``fettle deploy``: a model served under KServe, and the predictor that serves it there."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import FAILED
from fettle.errors import ConfigError

if TYPE_CHECKING:
    from fettle.deploy.kserve.cluster import Cluster, Standing

deploy = typer.Typer(help="Serve a model under KServe.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the InferenceService.")]
Namespace = Annotated[str, typer.Option(help="The namespace it is in.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster; else as kubectl does.")]
Context = Annotated[str | None, typer.Option(help="Which cluster of the kubeconfig.")]


@deploy.command("kserve")
def kserve(
    name: Annotated[str, typer.Option(help="Of the InferenceService.")],
    model_uri: Annotated[str, typer.Option(help="Where the exported folder lies: pvc://, s3://, gs://, hf://, ...")],
    namespace: Namespace = "default",
    image: Annotated[
        str | None, typer.Option(help="Of Fettle's predictor; without it KServe's server of Hugging Face models.")
    ] = None,
    canary: Annotated[int | None, typer.Option(help="Percent of the requests for the change; else all.")] = None,
    gpus: Annotated[int, typer.Option(help="Of each replica.")] = 0,
    cpus: Annotated[str, typer.Option(help="Of each replica.")] = "2",
    memory: Annotated[str, typer.Option(help="Of each replica.")] = "4Gi",
    replicas: Annotated[int, typer.Option(help="Servers of the model.")] = 1,
    create_namespace: Annotated[bool, typer.Option("--create-namespace", help="Make it if there is none.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifest, and ask no cluster.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Make the InferenceService of that name, or change it; a canary is made one for all by deploying it without."""
    from fettle.config.load import load_as
    from fettle.deploy.serving import Serving

    asked = {
        "name": name,
        "model_uri": model_uri,
        "namespace": namespace,
        "image": image,
        "canary": canary,
        "gpus": gpus,
        "cpus": cpus,
        "memory": memory,
        "replicas": replicas,
    }
    serving = load_as(Serving, None, [f"{key}={json.dumps(value)}" for key, value in asked.items()])
    _check_sdk()
    from fettle.deploy.kserve.manifest import manifest

    made = manifest(serving)
    if dry_run:
        import yaml

        print("# A dry run: no cluster was asked.")
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return
    cluster = _cluster(kubeconfig, context)
    if create_namespace and cluster.make_namespace(namespace):
        print(f"created namespace {namespace}")
    print(f"{cluster.apply(made)} {name} in {namespace}; fettle deploy status {name} says when it answers")


@deploy.command("status")
def status(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Say how the service is doing, in the cluster's words; ends with 1 while it is not ready."""
    standing = _cluster(kubeconfig, context).standing(name, namespace)
    for line in _told(standing):
        print(line)
    if not standing.ready:
        raise typer.Exit(FAILED)


@deploy.command("rollback")
def rollback(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Give all requests to the revision that had them before the last change."""
    print(f"all requests go to {_cluster(kubeconfig, context).roll_back(name, namespace)}")


@deploy.command("delete")
def delete(
    name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None, context: Context = None
) -> None:
    """Take the service away. The model stays where it lies."""
    _cluster(kubeconfig, context).delete(name, namespace)
    print(f"deleted {name} in {namespace}")


@deploy.command("predictor")
def predictor(
    model: Annotated[str, typer.Option(help="The folder of a whole model.")],
    name: Annotated[str, typer.Option(help="What clients call it.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the service, as a.b=value.")] = None,
    port: Annotated[int, typer.Option(help="Port to listen on, on all addresses.")] = 8080,
) -> None:
    """Be the container of an InferenceService: answer KServe's V1 and V2 protocols, and OpenAI's below /openai/v1."""
    _check_sdk()
    from fettle.cli import predicting

    predicting.run(model, name, port, overrides or ())


def _cluster(kubeconfig: Path | None, context: str | None) -> "Cluster":
    _check_sdk()
    from fettle.deploy.kserve.cluster import Cluster

    return Cluster(None if kubeconfig is None else str(kubeconfig), context)


def _check_sdk() -> None:
    """KServe's SDK is here; what it reads of the command line as it is imported is not for it."""
    found = find_spec("kserve")
    if found is None or found.origin is None:  # a mere folder of that name has no origin
        raise ConfigError(
            "KServe's SDK is not installed here, for it needs an environment of its own: ./run fettle deploy ... "
            "makes it, or pip install 'fettle[server,deploy]' -c constraints-deploy.txt in a new one"
        )
    del sys.argv[1:]


def _told(standing: "Standing") -> list[str]:
    lines = ["ready" if standing.ready else f"not ready: {standing.why}"]
    if standing.url:
        lines.append(f"answers at {standing.url}")
    lines += [f"{percent:3} % of the requests go to {revision}" for revision, percent in standing.traffic]
    return lines
