"""SYNC: pull records over HTTP, page by page, and bring a collection or an HTTP target up to date with them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, field_validator

# No user name in a URL: credentials go into a header, which no log shows.
Url = Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s/?#@\\]+(/[^\s#]*|\?[^\s#]*)?$")]
PlainUrl = Annotated[str, StringConstraints(max_length=1500, pattern=r"^https?://[^\s/?#@\\]+(/[^\s?#]*)?$")]
Path = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^.\x00-\x1f]+(\.[^.\x00-\x1f]+)*$")]
Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.~\[\]-]{1,50}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e\t]{0,4000}$")]
OURS = frozenset(
    {"host", "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "idempotency-key"}
) | frozenset(
    {"content-length", "content-encoding", "transfer-encoding", "accept-encoding", "if-none-match", "if-modified-since"}
)


def _not_ours(headers: dict[str, str]) -> dict[str, str]:
    for name in headers:
        if name.lower() in OURS:
            raise ValueError(f"the header {name} is set by the platform; leave it out")
    return headers


class Model(BaseModel):
    """A part of the payload: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class NoPages(Model):
    """The source is one answer."""

    kind: Literal["none"] = "none"


class LinkHeader(Model):
    """The next page is in the Link header, rel="next" (RFC 8288)."""

    kind: Literal["link_header"]


class NextField(Model):
    """The next page is in the JSON document: a URL, or with `param` the value of that query parameter."""

    kind: Literal["next_field"]
    path: Path
    param: Parameter | None = None


class PageParam(Model):
    """Pages are numbered by a query parameter; the first empty page is the end."""

    kind: Literal["page_param"]
    name: Parameter = "page"
    start: int = Field(default=1, ge=0, le=1_000_000)
    size_name: Parameter | None = None
    size: int = Field(default=100, ge=1, le=10_000)


class Source(Model):
    """Where records come from. `records_path` leads to the list of records inside a JSON document."""

    url: Url
    format: Literal["auto", "json", "csv"] = "auto"
    records_path: Path | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=20)
    pagination: Annotated[NoPages | LinkHeader | NextField | PageParam, Field(discriminator="kind")] = NoPages()
    max_pages: int = Field(default=1_000, ge=1, le=10_000)
    max_records: int = Field(default=100_000, ge=1, le=1_000_000)

    _checked = field_validator("headers")(_not_ours)


class TableTarget(Model):
    """A collection of the owner's, kept in the platform's own database."""

    collection: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class HttpTarget(Model):
    """An HTTP service that takes `PUT {url}/{key}`. Records it has from the last sync are not sent again."""

    url: PlainUrl
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=20)
    push_unchanged: bool = False

    _checked = field_validator("headers")(_not_ours)


def _target_tag(value: object) -> str:
    over_http = "url" in value if isinstance(value, dict) else isinstance(value, HttpTarget)
    return "http" if over_http else "table"


class SyncPayload(Model):
    """What to pull, which field identifies a record (dotted path), and where to bring it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "source": {
                        "url": "https://api.example.com/products",
                        "records_path": "data.items",
                        "pagination": {"kind": "link_header"},
                    },
                    "key": "id",
                    "target": {"collection": "products"},
                }
            ]
        },
    )

    source: Source
    key: Path
    target: Annotated[
        Annotated[TableTarget, Tag("table")] | Annotated[HttpTarget, Tag("http")], Discriminator(_target_tag)
    ]


class SyncResult(BaseModel):
    """What the sync did. `truncated`: it stopped at max_pages or max_records, where the source goes on."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    reasons: list[str] = Field(default_factory=list, description="Why records were rejected: the first 100.")
    pages: int = 0
    records: int = 0
    not_modified: bool = False
    truncated: bool = False
