"""The demo itself: a throw-away user, three tasks at once, then the same SYNC again."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskflow_cli.demo import results, source
from taskflow_cli.display import live_display
from taskflow_cli.following import follow
from taskflow_cli.output import say
from taskflow_client.models import Task
from taskflow_client.sync import TaskFlow

DEADLINE_S = 60.0


def play(client: TaskFlow, *, mail_dir: Path | None, folder: Path) -> bool:
    """Run the demo and print what came of it; return whether everything did as it should.

    `mail_dir` is where the platform's mail catcher stores mail, if known; reports are stored in `folder`.
    """
    until = time.monotonic() + DEADLINE_S
    email = f"demo-{secrets.token_hex(4)}@example.com"
    password = secrets.token_urlsafe(24)
    client.account.register(email, password)
    client.account.login(email, password)
    say(f"Registered {email} at {client.connection.url}.")
    with source.serving() as server:
        say(f"Serving {source.RECORDS} records in {source.PAGES} pages at {server.url}.\n")
        sync = sync_request(server.url)
        first = _run(client, [email_request(email), report_request(), sync], until=until)
        say("")
        shown = [_show(client, task, mail_dir=mail_dir, folder=folder) for task in first]
        say("The same SYNC once more:")
        (again,) = _run(client, [sync], until=until)
        say("")
        shown.append(_show(client, again, mail_dir=mail_dir, folder=folder))
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


def _run(client: TaskFlow, requests: Sequence[dict[str, Any]], *, until: float) -> list[Task]:
    """Submit the requests and return their tasks once all have ended, in the same order."""
    tasks = {task.id: task for task in [client.tasks.create(**request) for request in requests]}
    with live_display() as display:
        for task in follow(client, list(tasks), timeout_s=max(0.0, until - time.monotonic())):
            tasks[task.id] = task
            display.show(task)
    return list(tasks.values())


def _show(client: TaskFlow, task: Task, *, mail_dir: Path | None, folder: Path) -> bool:
    say(f"{task.type} {task.id} is {task.state}.")
    if task.status != "COMPLETED" or task.result is None:
        results.print_error(task)
        return False
    if task.type == "EMAIL":
        return results.print_mail(task.result, mail_dir=mail_dir)
    if task.type == "REPORT":
        return results.print_files(client, task, folder=folder / task.id)
    results.print_sync(task.result)
    return True
