"""The examples of docs/webhooks.md accept what is sent and refuse what is not."""

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskflow_core.signatures import new_secret, sign
from taskflow_core.webhooks import WebhookKind

GUIDE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
BODY = '{"type": "task.completed", "data": {"title": "Grüße"}}'.encode()
SECRET = new_secret()
PROGRAM = """
const lines = require("node:fs").readFileSync(0, "utf8").trim().split("\\n").map(JSON.parse);
for (const {secret, headers, body} of lines) {
  try { console.log(JSON.stringify(verified(secret, headers, Buffer.from(body, "base64")))); }
  catch (error) { console.log(JSON.stringify(error.message)); }
}
"""


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


def headers(*, secrets: list[str], age_s: int = 0) -> dict[str, str]:
    return sign(BODY, message_id="m1", timestamp=int(time.time()) - age_s, secrets=secrets)


def cases() -> list[tuple[dict[str, str], bytes, str | None]]:
    """Return headers, a body, and what it is refused with (None: it is accepted)."""
    return [
        (headers(secrets=[SECRET]), BODY, None),
        (headers(secrets=[new_secret(), SECRET]), BODY, None),
        (headers(secrets=[new_secret()]), BODY, "not from TaskFlow"),
        (headers(secrets=[SECRET]), BODY + b" ", "not from TaskFlow"),
        (headers(secrets=[SECRET]) | {"webhook-id": "m2"}, BODY, "not from TaskFlow"),
        (headers(secrets=[SECRET], age_s=400), BODY, "too old"),
        (headers(secrets=[SECRET], age_s=-400), BODY, "too old"),
    ]


def test_the_python_example_verifies() -> None:
    scope: dict[str, Any] = {}
    exec(compile(example("python"), "docs/webhooks.md", "exec"), scope)  # noqa: S102 - the guide's own code
    verified: Callable[[str, dict[str, str], bytes], Any] = scope["verified"]
    for head, body, refusal in cases():
        if refusal is None:
            assert verified(SECRET, head, body) == json.loads(BODY)
        else:
            with pytest.raises(ValueError, match=refusal):
                verified(SECRET, head, body)


def test_the_javascript_example_verifies_where_node_is_installed() -> None:
    node = shutil.which("node")
    source = example("javascript")
    assert "timingSafeEqual" in source
    if node is None:
        return
    lines = "\n".join(
        json.dumps({"secret": SECRET, "headers": head, "body": base64.b64encode(body).decode()})
        for head, body, _ in cases()
    )
    ran = subprocess.run(
        [node, "-e", source + PROGRAM], input=lines, capture_output=True, text=True, timeout=60, check=True
    )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert answers == [json.loads(BODY) if refusal is None else refusal for _, _, refusal in cases()]


def test_the_guide_names_every_kind() -> None:
    assert {f"`{kind}`" for kind in WebhookKind} <= set(re.findall(r"`[a-z_.*]+`", GUIDE))


def test_every_kind_that_the_core_writes_can_be_asked_for() -> None:
    core = Path(__file__).parents[2] / "core" / "taskflow_core"
    written = {
        kind for file in core.glob("*.py") for kind in re.findall(r"""['"](task\.[a-z_]+)['"]""", file.read_text())
    }
    assert written
    assert written <= set(WebhookKind)
