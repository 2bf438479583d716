"""Trajectories in the documented form, as files of other programs hold them."""

from typing import Any

STEPS = [
    {"action": "read the issue", "observation": "Sums are wrong", "response": "I look at calc.py."},
    {"action": "view calc.py", "observation": "return a - b", "response": "The sign is wrong."},
    {"action": "edit calc.py", "observation": "saved", "response": "It adds now."},
    {"action": "run the tests", "observation": "2 passed", "response": ""},
]


def trajectory(number: int = 7, **given: Any) -> dict[str, Any]:
    """One of four steps, three of which say something; solved, unless told otherwise."""
    about = {
        "issue_number": number,
        "issue_title": f"Sums are wrong in case {number}",
        "issue_body": "Adding two and three gives minus one. " * 20,
        "issue_type": "bug",
        "issue_labels": ["bug"],
        "issue_created_at": "2026-01-01T09:00:00Z",
        "issue_closed_at": None,
    }
    return {
        "issue_id": f"ada__calc-{number}",
        "issue_url": f"https://example.com/{number}",
        "repository": "ada/calc",
        "steps": STEPS,
        "metadata": about,
        "created_at": "2026-01-02T09:00:00Z",
        "source": "github",
        "outcome": {"reward": 1.0, "resolved": True, "problem": ""},
        **given,
    }
