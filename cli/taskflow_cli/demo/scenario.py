"""The demo itself: a throw-away user, three tasks at once, then the same SYNC again."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskflow_cli.demo import results, source
from taskflow_cli.display import live_display
from taskflow_cli.following import follow
from taskflow_cli.output import say
from taskflow_client.models import Task
from taskflow_client.sync import TaskFlow

DEADLINE_S = 60.0
BESIDE_WORKERS = "http://demo-source:8080/products"  # where docker-compose.yml serves the collection to its workers
SOURCE_HINT = (
    "the workers must be allowed to fetch from there (TASKFLOW_FETCH_ALLOW_HOSTS); --source URL names another source"
)


@dataclass(frozen=True)
class Setting:
    """Where the demo plays: where the platform's mail catcher keeps mail, if known, and where reports go.

    SYNC pulls from `source_url`; without one from here, when the workers are known to fetch from here (`is_here`), or
    else when one of them shows that it does, or else from the collection beside the workers.
    """

    mail_dir: Path | None
    folder: Path
    source_url: str | None
    is_here: bool


def play(client: TaskFlow, setting: Setting) -> bool:
    """Run the demo and print what came of it; return whether everything did as it should."""
    until = time.monotonic() + DEADLINE_S
    email = f"demo-{secrets.token_hex(4)}@example.com"
    password = secrets.token_urlsafe(24)
    client.account.register(email, password)
    client.account.login(email, password)
    say(f"Registered {email} at {client.connection.url}.")
    with source.serving() as server:
        url = choose_source(client, server.url, setting, until=until)
        say(f"The workers pull records from {url}.\n")
        sync = sync_request(url)
        first = _run(client, [email_request(email), report_request(), sync], until=until)
        say("")
        shown = [_show(client, task, setting) for task in first]
        say("The same SYNC once more:")
        (again,) = _run(client, [sync], until=until)
        say("")
        shown.append(_show(client, again, setting))
    return all(shown)


def email_request(recipient: str) -> dict[str, Any]:
    """Return the body that asks for a mail from templates, as text and HTML."""
    return {
        "type": "EMAIL",
        "title": "Demo: a welcome mail",
        "payload": {
            "to": [recipient],
            "subject": "Welcome to TaskFlow, {{ name }}",
            "text": "Hello {{ name }},\n\nthis mail was sent by a worker, once, whatever failed on the way.\n",
            "html": "<p>Hello <b>{{ name }}</b>,</p><p>this mail was sent by a worker, once.</p>",
            "variables": {"name": "Ada"},
        },
    }


def report_request() -> dict[str, Any]:
    """Return the body that asks for a report of the last day in every format."""
    return {
        "type": "REPORT",
        "title": "Demo: the last 24 hours",
        "payload": {"last": "24h", "format": ["csv", "xlsx", "html", "pdf"], "title": "TaskFlow demo"},
    }


def sync_request(url: str) -> dict[str, Any]:
    """Return the body that asks to pull the collection at `url` into a collection of the user."""
    return {
        "type": "SYNC",
        "title": "Demo: products",
        "payload": {
            "source": {"url": url, "records_path": "items", "pagination": {"kind": "next_field", "path": "next"}},
            "key": "sku",
            "target": {"collection": "demo-products"},
        },
    }


def probe_request(url: str) -> dict[str, Any]:
    """Return the body that asks for the first page at `url` alone, in one attempt."""
    payload = {
        "source": {"url": url, "records_path": "items"},
        "key": "sku",
        "target": {"collection": "demo-probe"},
    }
    return {"type": "SYNC", "title": "Demo: may workers fetch from here?", "payload": payload, "max_attempts": 1}


def choose_source(client: TaskFlow, here: str, setting: Setting, *, until: float) -> str:
    """Return the URL that is named, or `here`, on this machine, if workers may fetch it, or else the one beside them.

    Raises:
        DeadlinePassed: no worker said so before `until`, by the monotonic clock.
    """
    if setting.source_url is not None:
        return setting.source_url
    if setting.is_here:
        return here
    probe = client.tasks.create(**probe_request(here))
    for seen in follow(client, [probe.id], timeout_s=max(0.0, until - time.monotonic())):
        probe = seen
    return here if probe.status == "COMPLETED" else BESIDE_WORKERS


def _run(client: TaskFlow, requests: Sequence[dict[str, Any]], *, until: float) -> list[Task]:
    """Submit the requests and return their tasks once all have ended, in the same order."""
    tasks = {task.id: task for task in [client.tasks.create(**request) for request in requests]}
    with live_display() as display:
        for task in follow(client, list(tasks), timeout_s=max(0.0, until - time.monotonic())):
            tasks[task.id] = task
            display.show(task)
    return list(tasks.values())


def _show(client: TaskFlow, task: Task, setting: Setting) -> bool:
    say(f"{task.type} {task.id} is {task.state}.")
    if task.status != "COMPLETED" or task.result is None:
        results.print_error(task, hint=SOURCE_HINT if task.type == "SYNC" else "")
        return False
    if task.type == "EMAIL":
        return results.print_mail(task.result, mail_dir=setting.mail_dir)
    if task.type == "REPORT":
        return results.print_files(client, task, folder=setting.folder / task.id)
    results.print_sync(task.result)
    return True
