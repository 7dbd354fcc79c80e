"""Commands for webhooks: webhooks ls, add, rm, enable, disable, test, rotate, deliveries, redeliver."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from taskflow_cli.connection import connect
from taskflow_cli.options import EXAMPLE_ID, TASK_PANEL, Api, AsJson, examples
from taskflow_cli.output import moment, print_items, print_json, print_one, say

if TYPE_CHECKING:
    from taskflow_client.models import Delivery, Webhook

WebhookId = Annotated[UUID, typer.Argument(metavar="ID", help="The webhook's id.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands."""
    line = "taskflow webhooks add https://example.com/hook --kind task.completed --kind task.failed"
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Send what happens to your tasks to an address of yours.",
        epilog=examples(line),
    )
    group.command("ls", epilog=examples("taskflow webhooks ls", "taskflow webhooks ls --json"))(list_webhooks)
    group.command(epilog=examples(line))(add)
    for name, command in (
        ("rm", remove),
        ("enable", enable),
        ("disable", disable),
        ("test", send_test),
        ("rotate", rotate),
    ):
        group.command(name, epilog=examples(f"taskflow webhooks {name} {EXAMPLE_ID}"))(command)
    group.command(epilog=examples(f"taskflow webhooks deliveries {EXAMPLE_ID}"))(deliveries)
    group.command(epilog=examples(f"taskflow webhooks redeliver {EXAMPLE_ID} {EXAMPLE_ID}"))(redeliver)
    app.add_typer(group, name="webhooks", rich_help_panel=TASK_PANEL)


def list_webhooks(api: Api = None, as_json: AsJson = False) -> None:
    """List your webhooks, newest first."""
    with connect(api) as client:
        print_items(client.webhooks.list(), ("ID", "STATE", "KINDS", "URL"), _row, as_json=as_json)


def add(
    url: Annotated[str, typer.Argument(help="Where events are sent.")],
    kind: Annotated[list[str], typer.Option(help="A kind of event, such as task.failed; may be given several times.")],
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only tasks of this type.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Only tasks of this queue.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Register an address and show its signing secret, this once."""
    with connect(api) as client:
        webhook = client.webhooks.create(url, kind, types=type_, queues=queue)
    print_one(webhook, _secret, as_json=as_json)


def remove(webhook_id: WebhookId, api: Api = None, as_json: AsJson = False) -> None:
    """Delete a webhook with its deliveries."""
    with connect(api) as client:
        client.webhooks.delete(webhook_id)
    if as_json:
        print_json({"deleted": str(webhook_id)})
    else:
        say(f"Webhook {webhook_id} is deleted.")


def enable(webhook_id: WebhookId, api: Api = None, as_json: AsJson = False) -> None:
    """Send the events that happen from now on."""
    with connect(api) as client:
        webhook = client.webhooks.enable(webhook_id)
    print_one(webhook, _told, as_json=as_json)


def disable(webhook_id: WebhookId, api: Api = None, as_json: AsJson = False) -> None:
    """Send nothing more."""
    with connect(api) as client:
        webhook = client.webhooks.disable(webhook_id)
    print_one(webhook, _told, as_json=as_json)


def send_test(webhook_id: WebhookId, api: Api = None, as_json: AsJson = False) -> None:
    """Send an event of the kind "webhook.test"."""
    with connect(api) as client:
        delivery = client.webhooks.test(webhook_id)
    print_one(delivery, _sent, as_json=as_json)


def rotate(webhook_id: WebhookId, api: Api = None, as_json: AsJson = False) -> None:
    """Make a new signing secret and show it; for a day the one before signs too."""
    with connect(api) as client:
        webhook = client.webhooks.rotate_secret(webhook_id)
    print_one(webhook, _secret, as_json=as_json)


def deliveries(
    webhook_id: WebhookId,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only those in this state.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List what was sent or waits to be, newest first."""
    headings = ("ID", "STATE", "KIND", "CREATED", "TRIES", "STATUS", "TASK")
    with connect(api) as client:
        print_items(client.webhooks.deliveries(webhook_id, state=state), headings, _delivery_row, as_json=as_json)


def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[UUID, typer.Argument(metavar="DELIVERY", help="The delivery's id.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Send a delivery again."""
    with connect(api) as client:
        delivery = client.webhooks.redeliver(webhook_id, delivery_id)
    print_one(delivery, _sent, as_json=as_json)


def _row(webhook: "Webhook") -> tuple[str, ...]:
    return (webhook.id, _state(webhook), ",".join(webhook.kinds), webhook.url)


def _state(webhook: "Webhook") -> str:
    if webhook.disabled:
        return "disabled"
    return "failing" if webhook.failing_since else "open"


def _told(webhook: "Webhook") -> str:
    return f"Webhook {webhook.id} ({webhook.url}) is {_state(webhook)}."


def _secret(webhook: "Webhook") -> str:
    return f"{webhook.secret}\nIt signs what is sent to {webhook.url} ({webhook.id}) and is shown this once."


def _sent(delivery: "Delivery") -> str:
    return f"Delivery {delivery.id} ({delivery.kind}) is {delivery.state}."


def _delivery_row(delivery: "Delivery") -> tuple[str, ...]:
    status = str((delivery.response or {}).get("status") or "-")
    about = (delivery.state, delivery.kind, moment(delivery.created_at), str(delivery.attempts), status)
    return (delivery.id, *about, delivery.task_id or "-")
