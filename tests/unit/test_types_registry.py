"""The task types of the box are found by their entry points, describe themselves, and are cheap to import."""

import subprocess
import sys

import pytest

from taskflow_core.handlers import Registry

HEAVY = {"reportlab", "xlsxwriter", "aiosmtplib", "jinja2", "httpx2", "httpcore2"}


@pytest.mark.parametrize("name", ["EMAIL", "REPORT", "SYNC"])
def test_a_type_of_the_box_is_found_and_its_examples_are_valid(name: str) -> None:
    found = Registry.load().get(name)
    assert found is not None
    assert found.is_async
    assert found.summary
    schema = found.payload.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["examples"]
    for example in schema["examples"]:
        found.payload.model_validate(example)
    assert found.result is not None


def test_reading_the_payload_models_imports_nothing_heavy() -> None:
    program = (
        "import sys, taskflow_worker.types.email, taskflow_worker.types.report, taskflow_worker.types.sync;"
        f"print(*sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
