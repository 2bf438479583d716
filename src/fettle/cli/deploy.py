"""``fettle deploy``: a model served under KServe, the predictor that serves it there, and a run on a Ray cluster."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fettle.cli.exits import FAILED

if TYPE_CHECKING:
    from fettle.deploy.kserve.cluster import Cluster, Standing

deploy = typer.Typer(help="Serve a model under KServe, or train on a Ray cluster.", no_args_is_help=True)

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
    from fettle.deploy.sdk import sdk
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
    serving = load_as(Serving, None, _laid_over(asked))
    with sdk():
        from fettle.deploy.kserve.manifest import manifest

    made = manifest(serving)
    if dry_run:
        _show(made)
        return
    cluster = _cluster(kubeconfig, context)
    if create_namespace and cluster.make_namespace(namespace):
        print(f"created namespace {namespace}")
    print(f"{cluster.apply(made)} {name} in {namespace}; fettle deploy status {name} says when it answers")


@deploy.command("rayjob")
def rayjob(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, whose paths are those of the pods.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the RayJob, as trainers.gpus=8.")] = None,
    *,
    name: Annotated[str, typer.Option(help="Of the RayJob, and the id of the run: no two have one.")],
    image: Annotated[str, typer.Option(help="With Fettle and Ray in it, as deploy/Dockerfile makes it.")],
    claim: Annotated[str, typer.Option(help="A volume claim for runs, which all pods can write to.")],
    namespace: Namespace = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the manifests, and ask no cluster.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Train on a Ray cluster of its own, which KubeRay makes for the run and takes away after it."""
    from fettle.config import Pipeline
    from fettle.config.load import load, load_as
    from fettle.deploy.rayjob import Submission, engine_settings, manifests

    asked = {"name": name, "image": image, "claim": claim, "namespace": namespace}
    submission = load_as(Submission, None, [*(overrides or ()), *_laid_over(asked)])
    config = load(recipe)
    stages = range(len(config.stages)) if isinstance(config, Pipeline) else ()
    engines = [f"stages.{number}.engine" for number in stages] or ["engine"]
    settings = engine_settings(submission, engines)
    load(recipe, [*(f"{engine}.type=ray" for engine in engines), *settings])  # refused here rather than there
    job, data = manifests(submission, recipe.read_text(encoding="utf-8"), settings)
    if dry_run:
        _show(data, job)
        return
    _cluster(kubeconfig, context).begin(job, data)
    print(f"began {name} in {namespace}; kubectl get rayjob {name} -n {namespace} says how it is doing")


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
    from fettle.deploy.sdk import sdk

    with sdk():
        from fettle.cli import predicting

    predicting.run(model, name, port, overrides or ())


def _laid_over(asked: Mapping[str, object]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in asked.items()]


def _show(*made: Mapping[str, object]) -> None:
    from fettle.deploy.written import written

    print(f"# A dry run: no cluster was asked.\n{written(*made)}", end="")


def _cluster(kubeconfig: Path | None, context: str | None) -> "Cluster":
    from fettle.deploy.sdk import sdk

    with sdk():
        from fettle.deploy.kserve.cluster import Cluster

    return Cluster(None if kubeconfig is None else str(kubeconfig), context)


def _told(standing: "Standing") -> list[str]:
    lines = ["ready" if standing.ready else f"not ready: {standing.why}"]
    if standing.url:
        lines.append(f"answers at {standing.url}")
    lines += [f"{percent:3} % of the requests go to {revision}" for revision, percent in standing.traffic]
    return lines
