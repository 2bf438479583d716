"""``fettle deploy`` and a cluster: what it asks, what is there afterwards, and what it says of it."""

import pytest

PATH = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
SUMS = ("kserve", "--name", "sums", "--model-uri")


def predictor(api) -> dict[str, object]:
    return api.services["default/sums"]["spec"]["predictor"]


def conditions(**status: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": value, "message": f"{kind} says so"} for kind, value in status.items()]


def test_a_service_is_made_then_changed_for_some_and_then_for_all(fettle, api):
    made = fettle(*SUMS, "hf://acme/sums", "--gpus", "1")
    assert (made.code, made.out) == (0, "created sums in default; fettle deploy status sums says when it answers\n")
    assert api.calls == [f"GET {PATH}/sums", f"POST {PATH}"]
    assert predictor(api)["model"]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    api.calls.clear()
    predictor(api)["serviceAccountName"] = "somebody-elses"
    changed = fettle(*SUMS, "s3://models/sums-2", "--canary", "10")
    assert changed.out.startswith("changed sums in default")
    assert api.calls == [f"GET {PATH}/sums", f"PATCH {PATH}/sums"]
    assert predictor(api)["canaryTrafficPercent"] == 10
    assert predictor(api)["model"]["storageUri"] == "s3://models/sums-2"
    assert "nvidia.com/gpu" not in predictor(api)["model"]["resources"]["limits"]
    assert fettle(*SUMS, "s3://models/sums-2").code == 0
    assert "canaryTrafficPercent" not in predictor(api)
    assert predictor(api)["serviceAccountName"] == "somebody-elses"


def test_another_server_takes_the_place_of_the_first(fettle, api):
    fettle(*SUMS, "hf://acme/sums")
    fettle(*SUMS, "pvc://models/sums", "--image", "registry/fettle:1")
    assert "model" not in predictor(api)
    [container] = predictor(api)["containers"]
    assert container["env"] == [{"name": "STORAGE_URI", "value": "pvc://models/sums"}]


def test_status_is_what_the_cluster_says(fettle, api):
    fettle(*SUMS, "hf://acme/sums")
    service = api.services["default/sums"]
    assert (fettle("status", "sums").code, fettle("status", "sums").out) == (
        1,
        "not ready: the cluster has not looked at the last change yet\n",
    )
    service["status"] = {"observedGeneration": 1, "conditions": conditions(PredictorReady="False", Ready="False")}
    waiting = fettle("status", "sums")
    assert (waiting.code, waiting.out) == (
        1,
        "not ready: PredictorReady: PredictorReady says so; Ready: Ready says so\n",
    )
    service["status"] = {
        "observedGeneration": 1,
        "url": "http://sums.default.example.org",
        "conditions": conditions(Ready="True"),
        "components": {"predictor": {"traffic": [{"revisionName": "sums-predictor-00001", "percent": 100}]}},
    }
    assert fettle("status", "sums").out.splitlines() == [
        "ready",
        "answers at http://sums.default.example.org",
        "100 % of the requests go to sums-predictor-00001",
    ]
    fettle(*SUMS, "hf://acme/sums-2")
    assert fettle("status", "sums").code == 1  # what the cluster said was of the change before


@pytest.mark.parametrize(
    ("revisions", "back_to"),
    [
        ({"latestRolledoutRevision": "r1", "latestReadyRevision": "r2", "latestCreatedRevision": "r2"}, "r1"),
        ({"latestRolledoutRevision": "r2", "latestReadyRevision": "r2", "previousRolledoutRevision": "r1"}, "r1"),
    ],
    ids=["a canary", "a change that got all"],
)
def test_requests_go_back_to_where_they_went_before(fettle, api, revisions, back_to):
    fettle(*SUMS, "hf://acme/sums")
    api.services["default/sums"]["status"] = {"components": {"predictor": revisions}}
    done = fettle("rollback", "sums")
    assert (done.code, done.out) == (0, f"all requests go to {back_to}\n")
    assert predictor(api)["canaryTrafficPercent"] == 0
    assert predictor(api)["model"]["storageUri"] == "hf://acme/sums"


def test_without_an_earlier_revision_nothing_is_rolled_back(fettle, api):
    fettle(*SUMS, "hf://acme/sums")
    newest = {"latestRolledoutRevision": "r1", "latestReadyRevision": "r1", "latestCreatedRevision": "r1"}
    api.services["default/sums"]["status"] = {"components": {"predictor": newest}}
    done = fettle("rollback", "sums")
    assert (done.code, done.complaint[:42]) == (1, "sums has no earlier revision to go back to")
    assert "canaryTrafficPercent" not in predictor(api)


def test_a_service_is_taken_away_once(fettle, api):
    fettle(*SUMS, "hf://acme/sums")
    assert fettle("delete", "sums").out == "deleted sums in default\n"
    assert api.services == {}
    again = fettle("delete", "sums")
    assert again.code == 1
    assert again.complaint == (
        f'the cluster at {api.url} refused: inferenceservices.serving.kserve.io "sums" not found'
    )


def test_a_namespace_is_made_where_that_is_asked_for(fettle, api):
    in_a_new_one = (*SUMS, "hf://acme/sums", "--namespace", "lab")
    assert fettle(*in_a_new_one).complaint == f'the cluster at {api.url} refused: namespaces "lab" not found'
    made = fettle(*in_a_new_one, "--create-namespace")
    assert made.out.splitlines()[0] == "created namespace lab"
    assert api.namespaces == {"default", "lab"}
    assert "created namespace" not in fettle(*in_a_new_one, "--create-namespace").out


def test_a_cluster_that_will_not_or_cannot_is_one_sentence(fettle, api):
    api.write_kubeconfig(token="expired")
    assert fettle("status", "sums").complaint == f"the cluster at {api.url} refused: Unauthorized"
    api.write_kubeconfig()
    api.has_kserve = False
    assert fettle(*SUMS, "hf://acme/sums").complaint == (
        f"the cluster at {api.url} knows no InferenceService: install KServe there"
    )
    api.url = "http://127.0.0.1:1"
    api.write_kubeconfig()
    assert fettle("status", "sums").complaint.startswith("the cluster at http://127.0.0.1:1 cannot be reached: ")
    api.kubeconfig.write_text("users: none\n")
    assert fettle("status", "sums").complaint.startswith("the kubeconfig cannot be used: ")
    api.kubeconfig.unlink()
    assert fettle("status", "sums").complaint.startswith("the kubeconfig cannot be used: ")


def test_without_a_kubeconfig_there_is_no_cluster(apart):
    done = apart.fettle("deploy", *SUMS, "hf://acme/sums")
    assert (done.code, done.out) == (1, "")
    assert done.complaint == (
        "there is no cluster to ask, for no kubeconfig is found here: name one with --kubeconfig "
        "(fettle deploy kserve --dry-run shows a manifest without a cluster)"
    )
