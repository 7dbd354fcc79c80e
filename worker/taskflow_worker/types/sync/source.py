"""The source's side of a sync: page after page into a file on disk, so that memory stays the size of one page."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

import httpx2

from taskflow_core.fetch import Client, Fetched, same_origin
from taskflow_core.handlers import Context, NonRetryable
from taskflow_worker.types.sync import http
from taskflow_worker.types.sync.models import LinkHeader, NextField, NoPages, PageParam, Source
from taskflow_worker.types.sync.records import Malformed, Record, Unfit, at, fit, parse_csv, parse_json, records_of

MAX_REASONS = 100
MAX_SPOOL_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Validators:
    """What a source said of its content, to ask later whether it changed."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers of a conditional request; none when nothing is known."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(slots=True)
class Pulled:
    """What came of the source; the records wait in `spool`, a temporary file, one line each."""

    spool: IO[bytes]
    validators: Validators = Validators()
    pages: int = 0
    records: int = 0
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)
    not_modified: bool = False
    truncated: bool = False

    def reject(self, reason: str) -> None:
        """Count a record that is left out; the first hundred reasons are kept."""
        self.rejected += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(reason)

    def add(self, found: list[Any], key_path: str) -> None:
        """Keep the records of a page."""
        for record in found:
            self.records += 1
            try:
                kept = fit(record, key_path)
            except Unfit as error:
                self.reject(f"record {self.records} {error}")
            else:
                self.spool.write(f"{json.dumps(kept.key)}\t{kept.text}\n".encode())
        if self.spool.tell() > MAX_SPOOL_BYTES:
            raise NonRetryable(f"the source holds more than {MAX_SPOOL_BYTES} bytes", code="source_too_large")

    def batches(self, size: int) -> Iterator[list[Record]]:
        """Yield the kept records in order, in lists of at most `size`, without a key twice in a list.

        Of records with the same key in a list the last is kept, the others are rejected.
        """
        self.spool.seek(0)
        while lines := list(islice(self.spool, size)):
            batch: dict[str, Record] = {}
            for line in lines:
                key, _, text = line.decode().rstrip("\n").partition("\t")
                record = Record(json.loads(key), text)
                if record.key in batch:
                    self.reject(f"key {record.key[:100]!r} came again in a later record")
                batch[record.key] = record
            yield list(batch.values())


async def pull(
    ctx: Context, client: Client, source: Source, key_path: str, *, known: Validators, spool: IO[bytes]
) -> Pulled:
    """Pull all pages into `spool`, up to the bounds of the source.

    Raises:
        NonRetryable: source_refused, source_malformed, source_too_large, pagination_loop, and what a request raises.
        Retry: the source is away or asks to come back.
    """
    pulled = Pulled(spool)
    url: str | None = first_url(source)
    seen: set[str] = set()
    before = b""
    while url is not None:
        ctx.check_cancel()
        if pulled.pages == source.max_pages or pulled.records >= source.max_records:
            pulled.truncated = True
            break
        conditions = known.headers() if pulled.pages == 0 else {}
        own = source.headers if same_origin(httpx2.URL(url), httpx2.URL(source.url)) else {}
        answer = await http.request(ctx, client, "GET", url, headers={**own, **conditions})
        if conditions and answer.status == 304:
            pulled.not_modified = True
            break
        http.check(answer, side="source")
        seen.add(url)
        url = await _take(pulled, source, key_path, answer)
        if url in seen or (isinstance(source.pagination, PageParam) and url and answer.body == before):
            raise NonRetryable("the source gives the same page again and again", code="pagination_loop")
        before = answer.body
        ctx.progress(pulled.pages, message=f"{pulled.records} records pulled")
    return pulled


async def _take(pulled: Pulled, source: Source, key_path: str, answer: Fetched) -> str | None:
    """Keep a page's records and return the URL of the next page, or None."""
    try:
        document, found = await asyncio.to_thread(_read, source, answer)
        following = next_url(source, pulled.pages, answer, document, found)
    except Malformed as error:
        raise NonRetryable(f"page {pulled.pages + 1}: {error}", code="source_malformed") from error
    if pulled.pages == 0:
        pulled.validators = Validators(answer.headers.get("etag"), answer.headers.get("last-modified"))
    pulled.pages += 1
    room = source.max_records - pulled.records
    pulled.truncated = pulled.truncated or len(found) > room
    await asyncio.to_thread(pulled.add, found[:room], key_path)
    return None if pulled.truncated else following


def _read(source: Source, answer: Fetched) -> tuple[Any, list[Any]]:
    media_type, _, parameters = answer.headers.get("content-type", "").lower().partition(";")
    if source.format == "csv" or (source.format == "auto" and media_type.strip() in {"text/csv", "application/csv"}):
        charset = parameters.partition("charset=")[2].split(";")[0].strip(' "') or "utf-8"
        return None, parse_csv(answer.body, charset)
    document = parse_json(answer.body)
    return document, records_of(document, source.records_path)


def first_url(source: Source) -> str:
    """Return the URL of the first page."""
    if isinstance(source.pagination, PageParam):
        return _numbered(source.url, source.pagination, source.pagination.start)
    return source.url


def next_url(source: Source, page: int, answer: Fetched, document: Any, found: list[Any]) -> str | None:
    """Return the URL of the page after `page` (counted from 0), or None at the end.

    Raises:
        Malformed: the pointer to the next page is neither text nor a number.
    """
    pagination = source.pagination
    if isinstance(pagination, NoPages):
        return None
    if isinstance(pagination, PageParam):
        return _numbered(source.url, pagination, pagination.start + page + 1) if found else None
    if isinstance(pagination, LinkHeader):
        link = httpx2.Response(answer.status, headers=answer.headers).links.get("next", {}).get("url")
        return _joined(answer.url, link) if link else None
    return _pointed(source, pagination, answer, at(document, pagination.path))


def _pointed(source: Source, pagination: NextField, answer: Fetched, pointer: Any) -> str | None:
    if pointer is None or pointer is False or pointer == "":
        return None
    if pagination.param is not None and isinstance(pointer, str | int):
        return str(httpx2.URL(source.url).copy_set_param(pagination.param, pointer))
    if not isinstance(pointer, str):
        raise Malformed(f"pagination.path {pagination.path!r} leads to {type(pointer).__name__}, not to a URL")
    return _joined(answer.url, pointer)


def _joined(base: str, reference: str) -> str:
    try:
        return str(httpx2.URL(base).join(reference))
    except httpx2.InvalidURL as error:
        raise Malformed("the URL of the next page cannot be read") from error


def _numbered(url: str, pagination: PageParam, number: int) -> str:
    parsed = httpx2.URL(url).copy_set_param(pagination.name, number)
    if pagination.size_name is not None:
        parsed = parsed.copy_set_param(pagination.size_name, pagination.size)
    return str(parsed)
