"""What the demo's tasks left behind: a mail, files, synced records."""

from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from taskflow_cli.output import say
from taskflow_client.models import Task
from taskflow_client.sync import TaskFlow

SHOWN_HEADERS = ("From", "To", "Subject", "Date", "Message-ID")
SHOWN_LINES = 4
SHOWN_WIDTH = 110


def print_mail(result: dict[str, Any], *, mail_dir: Path | None) -> bool:
    """Print the mail as it was stored; return whether it was found, or True when no folder is known."""
    message_id = str(result.get("message_id"))
    if mail_dir is None:
        say(f"  accepted for {result.get('accepted')} as {message_id}\n")
        return True
    found = find_mail(mail_dir, message_id)
    if found is None:
        say(f"  no mail with Message-ID {message_id} is in {mail_dir}\n")
        return False
    path, message = found
    say(f"  {path}")
    for name in SHOWN_HEADERS:
        say(f"  {name}: {message[name]}")
    body = message.get_body(("plain", "html"))
    _print_lines("" if body is None else str(body.get_content()))
    return True


def print_files(client: TaskFlow, task: Task, *, folder: Path) -> bool:
    """Download the task's files into `folder` and print them; return whether there are any."""
    files = client.tasks.files(task.id)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [client.tasks.save(task.id, file.name, folder) for file in files]
    for path, file in zip(paths, files, strict=True):
        say(f"  {path.stat().st_size:>8} bytes  {path}  ({file.media_type})")
    for path in paths:
        if path.suffix == ".csv":
            say(f"  {path.name}")
            _print_lines(path.read_text("utf-8"))
    return bool(files)


def print_sync(result: dict[str, Any]) -> None:
    """Print what the sync changed."""
    counts = ("records", "pages", "created", "updated", "unchanged", "not_modified")
    say("  " + ", ".join(f"{name} {result.get(name)}" for name in counts) + "\n")


def print_error(task: Task, *, hint: str) -> None:
    """Print why the task did not complete, and a way on if there is one."""
    error = task.error or {}
    say(f"  {error.get('code', 'no result')}: {error.get('message', '')}")
    say(f"  {hint}\n" if hint else "")


def find_mail(folder: Path, message_id: str) -> tuple[Path, EmailMessage] | None:
    """Return the mail of that Message-ID and where it is, the newest first, or None."""
    parser = BytesParser(EmailMessage, policy=policy.default)
    for path in sorted(folder.glob("*.eml"), reverse=True):
        message = parser.parsebytes(path.read_bytes())
        if message["Message-ID"] == message_id:
            return path, message
    return None


def _print_lines(text: str) -> None:
    lines = text.strip().splitlines()
    for line in lines[:SHOWN_LINES]:
        say(f"    | {line[:SHOWN_WIDTH]}")
    if len(lines) > SHOWN_LINES:
        say(f"    | ... {len(lines) - SHOWN_LINES} more lines")
    say("")
