"""Commands for API keys: keys ls, add, rm."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import ACCOUNT_PANEL, EXAMPLE_ID, Api, AsJson, examples
from taskflow_cli.output import age, moment, print_items, print_json, print_one, say

if TYPE_CHECKING:
    from taskflow_client.models import ApiKey, NewApiKey


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    line = "taskflow keys add nightly --scope tasks:read --scope tasks:write"
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode="rich", help="Keys for programs that act as you.", epilog=examples(line)
    )
    group.command("ls", epilog=examples("taskflow keys ls", "taskflow keys ls --json"))(list_keys)
    group.command(epilog=examples(line, "taskflow keys add ci --scope tasks:write --days 30 --json | jq -r .key"))(add)
    group.command("rm", epilog=examples(f"taskflow keys rm {EXAMPLE_ID}"))(remove)
    app.add_typer(group, name="keys", rich_help_panel=ACCOUNT_PANEL)


def list_keys(api: Api = None, as_json: AsJson = False) -> None:
    """List your keys, newest first; what they are is shown only when they are made."""
    with connect(api) as client:
        found = client.api_keys.list()
    print_items(found, ("ID", "HINT", "EXPIRES", "USED", "SCOPES", "NAME"), _row, as_json=as_json)


def add(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    scope: Annotated[list[str], typer.Option(help="What it may do, such as tasks:read; may be given several times.")],
    days: Annotated[int | None, typer.Option(min=1, max=366, help="How long it lives. Default: 90.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with connect(api) as client:
        key = client.api_keys.create(name, scope, expires_at=expires_at)
    print_one(key, _told, as_json=as_json)


def remove(
    key_id: Annotated[UUID, typer.Argument(metavar="ID", help="The key's id.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key."""
    with connect(api) as client:
        client.api_keys.revoke(key_id)
    if as_json:
        print_json({"revoked": str(key_id)})
    else:
        say(f"Key {key_id} is revoked.")


def _row(key: "ApiKey") -> tuple[str, ...]:
    used = age(key.last_used_at, now=datetime.now(UTC))
    return (key.id, key.hint, moment(key.expires_at), used, ",".join(key.scopes), key.name)


def _told(key: "NewApiKey") -> str:
    return f"{key.key}\nIt is shown this once and expires {moment(key.expires_at)}. Use it as TASKFLOW_API_KEY."
