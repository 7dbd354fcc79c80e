"""Webhooks over HTTP: make, read, change, rotate, disable, test, send again, and who sees what."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from httpx2 import Response
from pydantic import SecretStr

from api_app import Api, Person, api_settings, running_api
from taskflow_api.schemas.webhooks import DeliveryResource, WebhookResource, WebhookWithSecret
from taskflow_core.identifiers import new_id
from taskflow_core.models.users import Role
from taskflow_core.settings import Settings

URL = "/api/v1/webhooks"
HOOK: dict[str, Any] = {"url": "https://example.com/hook", "kinds": ["task.completed", "task.failed"]}


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    key = SecretStr("k" * 32)
    async with running_api(api_settings(module_settings, webhook_key=key, max_webhooks=3)) as api:
        yield api


@pytest.fixture
async def ada(api: Api) -> Person:
    return await api.person(f"ada-{new_id()}")


async def add(api: Api, person: Person, **changes: Any) -> Response:
    return await api.client.post(URL, json=HOOK | changes, headers=person.headers)


async def made(api: Api, person: Person, **changes: Any) -> str:
    """Make a webhook and return its address."""
    answer = await add(api, person, **changes)
    assert answer.status_code == 201, answer.text
    location: str = answer.headers["location"]
    return location


async def post(api: Api, person: Person, url: str) -> Response:
    return await api.client.post(url, headers=person.headers)


async def test_a_webhook_shows_its_secret_once_and_is_deleted(api: Api, ada: Person) -> None:
    answer = await add(api, ada, types=["LETTER", "LETTER"], queues=["high"])
    assert answer.status_code == 201, answer.text
    webhook = answer.json()
    assert set(webhook) == set(WebhookWithSecret.model_fields)
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["types"], webhook["queues"], webhook["disabled"]) == (["LETTER"], ["high"], False)
    url = answer.headers["location"]
    assert url == f"{URL}/{webhook['id']}"
    read = (await api.client.get(url, headers=ada.headers)).json()
    assert read == {name: value for name, value in webhook.items() if name != "secret"}
    assert set(read) == set(WebhookResource.model_fields)
    assert (await api.client.get(URL, headers=ada.headers)).json() == {"items": [read], "next_cursor": None}
    assert (await api.client.delete(url, headers=ada.headers)).status_code == 204
    assert (await api.client.get(url, headers=ada.headers)).status_code == 404


async def test_the_database_holds_no_readable_secret(api: Api, ada: Person) -> None:
    secret = (await add(api, ada)).json()["secret"]
    async with api.resources.sessions() as session:
        connection = await session.connection()
        rows = await connection.exec_driver_sql("SELECT secret FROM webhook_endpoints")
        stored = [row[0] for row in rows]
    assert stored
    assert not [value for value in stored if secret.encode() in value]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "url"),
        ({"url": "https://user:pass@example.com/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "https://example.com/" + "x" * 2000}, "url"),
        ({"url": "https://example.com/\n"}, "url"),
        ({"url": ""}, "url"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["task.exploded"]}, "kinds.0"),
        ({"kinds": ["*"]}, "kinds.0"),
        ({"types": ["no type"]}, "types.0"),
        ({"queues": ["No Queue"]}, "queues.0"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_a_bad_webhook_is_refused_by_its_field(
    api: Api, ada: Person, changes: dict[str, Any], field: str
) -> None:
    for answer in (
        await add(api, ada, **changes),
        await api.client.patch(await made(api, ada), json=changes, headers=ada.headers),
    ):
        assert answer.status_code == 422, answer.text
        assert field in [error["field"] for error in answer.json()["errors"]]


async def test_a_patch_changes_what_it_names(api: Api, ada: Person) -> None:
    url = await made(api, ada, types=["LETTER"])
    before = (await api.client.get(url, headers=ada.headers)).json()
    changes = {"url": "https://example.org/", "kinds": ["task.*"], "types": []}
    after = (await api.client.patch(url, json=changes, headers=ada.headers)).json()
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before | changes
    same = (await api.client.patch(url, json={}, headers=ada.headers)).json()
    assert {name: value for name, value in same.items() if name != "updated_at"} == after


async def test_another_secret_is_shown_once_and_the_old_one_has_its_day(api: Api, ada: Person) -> None:
    answer = await add(api, ada)
    url = answer.headers["location"]
    rotated = (await post(api, ada, f"{url}:rotateSecret")).json()
    assert rotated["secret"] not in {answer.json()["secret"], ""}
    assert rotated["previous_secret_expires_at"] > rotated["updated_at"]
    assert "secret" not in (await api.client.get(url, headers=ada.headers)).json()


async def test_a_disabled_webhook_is_neither_tested_nor_sent_to_again(api: Api, ada: Person) -> None:
    url = await made(api, ada)
    sent = await post(api, ada, f"{url}:test")
    assert (sent.status_code, sent.json()["state"], set(sent.json())) == (
        202,
        "WAITING",
        {*DeliveryResource.model_fields},
    )
    again = f"{url}/deliveries/{sent.json()['id']}:redeliver"
    assert (await post(api, ada, again)).json()["code"] == "conflict"
    for _ in range(2):
        disabled = (await post(api, ada, f"{url}:disable")).json()
        assert (disabled["disabled"], disabled["disabled_reason"]) == (True, None)
    listed = (await api.client.get(f"{url}/deliveries?state=FAILED", headers=ada.headers)).json()["items"]
    assert [(one["id"], one["kind"], one["attempts"]) for one in listed] == [(sent.json()["id"], "webhook.test", 0)]
    for refused in (f"{url}:test", again):
        assert (await post(api, ada, refused)).status_code == 409
    for _ in range(2):
        assert (await post(api, ada, f"{url}:enable")).json()["disabled"] is False
    assert (await post(api, ada, again)).json()["state"] == "WAITING"


async def test_pages_hold_every_webhook_and_delivery_once(api: Api, ada: Person) -> None:
    urls = [await made(api, ada) for _ in range(3)]
    assert await walk(api, ada, URL) == [url.rpartition("/")[2] for url in reversed(urls)]
    sent = [(await post(api, ada, f"{urls[0]}:test")).json()["id"] for _ in range(5)]
    assert await walk(api, ada, f"{urls[0]}/deliveries") == sent[::-1]
    assert await walk(api, ada, f"{urls[1]}/deliveries") == []


async def walk(api: Api, person: Person, url: str) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.client.get(url, params={"limit": "2", **cursor}, headers=person.headers)).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_an_owner_may_have_so_many_webhooks(api: Api, ada: Person) -> None:
    for _ in range(3):
        await made(api, ada)
    refused = await add(api, ada)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")


async def test_another_owners_webhook_is_not_there(api: Api, ada: Person) -> None:
    url = await made(api, ada)
    delivery = (await post(api, ada, f"{url}:test")).json()["id"]
    eve = await api.person(f"eve-{new_id()}")
    own = await made(api, eve)
    for method, path, body in (
        ("GET", url, None),
        ("PATCH", url, {"url": "https://evil.example/"}),
        ("DELETE", url, None),
        ("GET", f"{url}/deliveries", None),
        ("POST", f"{url}:rotateSecret", None),
        ("POST", f"{url}:test", None),
        ("POST", f"{url}:enable", None),
        ("POST", f"{url}:disable", None),
        ("POST", f"{url}/deliveries/{delivery}:redeliver", None),
        ("POST", f"{own}/deliveries/{delivery}:redeliver", None),
        ("GET", f"{URL}/{UUID(int=0)}", None),
    ):
        answer = await api.client.request(method, path, json=body, headers=eve.headers)
        assert answer.status_code == 404, (method, path)
    assert (await api.client.get(url, headers=ada.headers)).json()["url"] == HOOK["url"]


async def test_an_operator_sees_webhooks_of_all_but_no_secret(api: Api, ada: Person) -> None:
    url = await made(api, ada)
    olga = await api.person(f"olga-{new_id()}", role=Role.OPERATOR)
    assert (await api.client.get(url, headers=olga.headers)).status_code == 200
    refused = await post(api, olga, f"{url}:rotateSecret")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_without_a_key_nothing_is_registered_and_the_answer_names_the_setting(module_settings: Settings) -> None:
    async with running_api(api_settings(module_settings)) as api:
        bob = await api.person(f"bob-{new_id()}")
        refused = await add(api, bob)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_configured")
    assert "TASKFLOW_WEBHOOK_KEY" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
