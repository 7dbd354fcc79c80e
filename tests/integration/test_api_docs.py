"""The page at /docs shows every operation, and loads and runs nothing from elsewhere."""

from collections.abc import AsyncIterator
from html.parser import HTMLParser

import pytest

from api_app import Api, api_settings, running_api
from taskflow_api.operations import operations
from taskflow_api.reference import reading
from taskflow_core.settings import Settings


class Page(HTMLParser):
    """What a page holds: its tags, ids and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action"}]


@pytest.fixture(scope="module")
async def api(module_settings: Settings) -> AsyncIterator[Api]:
    async with running_api(api_settings(module_settings)) as api:
        yield api


async def test_the_page_shows_every_operation_and_needs_nothing_from_elsewhere(api: Api) -> None:
    answer = await api.client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(answer.text)
    document = (await api.client.get("/openapi.json")).json()
    names = [operation.spec["operationId"] for operation in operations(document)]
    assert names
    assert set(names) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "style", "iframe", "img", "object"} & page.tags
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    for link in page.links:
        inside = link.removeprefix("#") in page.ids
        assert inside or (await api.client.get("/" + link)).status_code == 200, link


async def test_the_browser_is_told_to_load_the_style_sheet_and_nothing_else(api: Api) -> None:
    policy = (await api.client.get("/docs")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    style = await api.client.get("/docs/style.css")
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "://" not in style.text
    assert "@import" not in style.text


def test_words_of_the_document_are_no_markup() -> None:
    operation = {
        "operationId": "x",
        "summary": "<script>alert(1)</script>",
        "description": "a & b",
        "tags": ["t"],
        "responses": {"200": {"description": "<b>", "content": {"application/json": {"example": {"a": "</pre>"}}}}},
    }
    document = {
        "info": {"title": "T", "version": "1", "description": "d"},
        "tags": [{"name": "t", "description": "<i>"}],
        "paths": {"/x": {"get": operation}},
    }
    text = reading.page(document)
    assert not {"script", "i"} & Page(text).tags
    assert "&lt;script&gt;" in text
    assert text.count("</pre>") == 2
