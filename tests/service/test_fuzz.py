"""Bad input made at random, a little of it: ``python -m benchmarks.fuzz --requests 20000`` makes more."""

from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.served import Tenant
from tests.service.served import NAME, Served


@pytest.fixture
def tenant(shared: Served, tmp_path: Path) -> Tenant:
    return Tenant(shared.url, shared.key, tmp_path, model=NAME)


def faults(answers):
    return {status: number for status, number in answers.items() if fuzz.is_fault(status)}


def test_damaged_messages_of_the_binary_protocol_are_refused_or_taken(tenant):
    answers = fuzz.damaged_messages(tenant, 300, seed=7)
    assert faults(answers) == {}
    assert answers[200]
    assert answers[400]


def test_damaged_frames_and_json_are_refused(tenant):
    answers = fuzz.damaged_calls(tenant, 200, seed=7)
    assert faults(answers) == {}
    assert answers[400]


def test_requests_made_of_the_openapi_document_never_meet_what_nobody_foresaw(tenant, tmp_path):
    answers = fuzz.from_document(tenant, 100, tmp_path)
    assert faults(answers) == {}
    assert answers[200]
    assert sum(answers.values()) >= 100
