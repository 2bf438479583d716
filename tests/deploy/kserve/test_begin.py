"""``fettle deploy rayjob`` and a cluster: the run and its recipe, made once or not at all."""

from pathlib import Path

import pytest

from fettle.deploy.schema import check_schema

RECIPE = Path(__file__).parents[3] / "configs" / "arithmetic-grpo.yaml"
BEGIN = ("rayjob", RECIPE, "--name", "sums", "--image", "registry/fettle:1", "--claim", "runs")
JOBS, RECIPES = "/apis/ray.io/v1/namespaces/default/rayjobs", "/api/v1/namespaces/default/configmaps"


def test_a_run_is_begun_once_and_its_recipe_goes_when_it_goes(fettle, api):
    done = fettle(*BEGIN, "trainers.count=2")
    assert (done.code, done.out) == (
        0,
        "began sums in default; kubectl get rayjob sums -n default says how it is doing\n",
    )
    assert api.calls == [f"POST {JOBS}", f"POST {RECIPES}"]
    job = api.jobs["sums"]
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    job["metadata"].pop("uid")
    check_schema(job, "RayJob")
    assert api.recipes["sums"]["data"] == {"recipe.yaml": RECIPE.read_text()}
    [owner] = api.recipes["sums"]["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "sums", "uid": "uid-of-sums"}
    again = fettle(*BEGIN)
    assert (again.code, len(api.calls)) == (1, 3)
    assert again.complaint == ("there is a run sums in default already, and each is begun once: choose another --name")


def test_where_its_recipe_has_no_room_no_run_waits_for_it(fettle, api):
    api.has_room = False
    assert fettle(*BEGIN).complaint == f"the cluster at {api.url} refused: exceeded quota"
    assert (api.jobs, api.calls[-1]) == ({}, f"DELETE {JOBS}/sums")


def test_a_cluster_without_kuberay_is_one_sentence(fettle, api):
    api.has_kuberay = False
    assert fettle(*BEGIN).complaint == f"the cluster at {api.url} knows no RayJob: install KubeRay there"


@pytest.mark.parametrize(
    ("uri", "stored"),
    [(None, "pvc://models/sums"), ("s3://models/sums", "s3://models/sums")],
    ids=["a volume", "a bucket"],
)
def test_the_documented_deployment_is_the_ordinary_one(apart, api, uri, stored):
    assert (
        apart.call("tests.deploy.kserve.documented:deployed", str(api.kubeconfig), "models/sums", "sums", uri)
        == "created"
    )
    assert api.namespaces == {"default", "ml-infrastructure"}
    assert api.services["ml-infrastructure/sums"]["spec"]["predictor"]["model"]["storageUri"] == stored
