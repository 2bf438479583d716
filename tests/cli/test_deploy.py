"""``fettle deploy`` where KServe's SDK is not: a slip is told, and what is missing; nothing is made up."""

from importlib.util import find_spec
from pathlib import Path

import pytest

RECIPE = str(Path(__file__).parents[2] / "configs" / "arithmetic-grpo.yaml")
KSERVE = ("deploy", "kserve", "--name", "sums")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model-uri", "models/sums"], "a cluster takes no model from models/sums: write pvc://CLAIM/FOLDER, s3://"),
        (["--model-uri", "s3n://models/sums"], "did you mean s3?"),
        (["--model-uri", "s3://models"], "from s3://models: no FOLDER is named, write s3://BUCKET/FOLDER"),
        (["--model-uri", "hf://acme/sums", "--name", "Sums_2"], "Sums_2 is no name in a cluster: use up to 63"),
        (
            ["--model-uri", "hf://acme/sums", "--canary", "101"],
            "canary=101: 'canary' should be less than or equal to 100",
        ),
        (["--model-uri", "hf://acme/sums", "--memory", "4 GB"], "4 GB is no amount in a cluster: write 4Gi"),
        (
            ["--model-uri", "hf://acme/sums", "--replicas", "0"],
            "replicas=0: 'replicas' should be greater than or equal to 1",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_one_sentence(fettle, options, complaint):
    done = fettle(*KSERVE, *options)
    assert done.code == 2
    assert complaint in done.complaint


@pytest.mark.skipif(find_spec("kserve") is not None, reason="the SDK is here")
@pytest.mark.parametrize(
    "arguments",
    [
        (*KSERVE, "--model-uri", "hf://acme/sums"),
        (*KSERVE, "--model-uri", "hf://acme/sums", "--dry-run"),
        ("deploy", "status", "sums"),
        ("deploy", "predictor", "--model", "sums", "--name", "sums"),
        ("deploy", "rayjob", RECIPE, "--name", "a", "--image", "b", "--claim", "c"),
    ],
    ids=lambda words: words[1],
)
def test_without_the_sdk_it_says_how_to_get_it(fettle, arguments):
    done = fettle(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.complaint.startswith("KServe's SDK is not installed here, for it needs an environment of its own: ")
