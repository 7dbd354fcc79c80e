"""EMAIL: a mail over SMTP, from templates if wanted, sent once however often the task is attempted."""

import base64
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

MAX_INLINE_BYTES = 180 * 1024
MAX_RECIPIENTS = 100

# A dot-atom and a domain (RFC 5321), ASCII only: an internationalised domain goes in its xn-- form.
ADDRESS = (
    r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64})*"
    r"@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
)
Address = Annotated[str, StringConstraints(max_length=254, pattern=ADDRESS)]
OneLine = StringConstraints(pattern=r"^[^\x00-\x1f\x7f\u0085\u2028\u2029]*$")
FileName = Annotated[
    str, StringConstraints(min_length=1, max_length=150, pattern=r"^[^\x00-\x1f\x7f/\\\u2028\u2029]+$")
]


class InlineAttachment(BaseModel):
    """A small file inside the payload."""

    model_config = ConfigDict(extra="forbid")

    name: FileName
    media_type: Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$")] = (
        "application/octet-stream"
    )
    content: Annotated[str, StringConstraints(max_length=4 * MAX_INLINE_BYTES // 3 + 4)] = Field(
        description="The file's bytes in base64."
    )

    @field_validator("content")
    @classmethod
    def _is_base64(cls, content: str) -> str:
        try:
            base64.b64decode(content, validate=True)
        except ValueError as error:
            raise ValueError("must be base64 without line breaks") from error
        return content

    def data(self) -> bytes:
        """Return the file's bytes."""
        return base64.b64decode(self.content)


class ReportAttachment(BaseModel):
    """Files of a REPORT task of the same owner: the one named, or all."""

    model_config = ConfigDict(extra="forbid")

    report_task_id: UUID
    name: FileName | None = None


def _attachment_tag(value: object) -> str:
    from_report = "report_task_id" in value if isinstance(value, dict) else isinstance(value, ReportAttachment)
    return "report" if from_report else "inline"


Attachment = Annotated[
    Annotated[InlineAttachment, Tag("inline")] | Annotated[ReportAttachment, Tag("report")],
    Discriminator(_attachment_tag),
]


class EmailPayload(BaseModel):
    """A mail. With `variables`, subject, text and html are Jinja2 templates; without, they are sent as they are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "to": ["ada@example.com"],
                    "subject": "Your report of {{ day }}",
                    "text": "Hello {{ name }}, the report is attached.",
                    "variables": {"name": "Ada", "day": "Monday"},
                }
            ]
        },
    )

    to: list[Address] = Field(min_length=1, max_length=50)
    cc: list[Address] = Field(default_factory=list, max_length=50)
    bcc: list[Address] = Field(default_factory=list, max_length=50)
    reply_to: Address | None = None
    subject: Annotated[str, StringConstraints(min_length=1, max_length=300), OneLine]
    text: str | None = Field(default=None, min_length=1, max_length=100_000)
    html: str | None = Field(default=None, min_length=1, max_length=200_000)
    variables: dict[str, Any] | None = Field(default=None, max_length=200)
    attachments: list[Attachment] = Field(default_factory=list, max_length=10)

    @model_validator(mode="after")
    def _is_whole(self) -> "EmailPayload":
        if self.text is None and self.html is None:
            raise ValueError("give text, html or both")
        if len(self.recipients()) > MAX_RECIPIENTS:
            raise ValueError(f"to, cc and bcc together may hold at most {MAX_RECIPIENTS} addresses")
        inline = sum(len(one.data()) for one in self.attachments if isinstance(one, InlineAttachment))
        if inline > MAX_INLINE_BYTES:
            raise ValueError(f"attachments may hold at most {MAX_INLINE_BYTES} bytes inline; attach a report instead")
        return self

    def recipients(self) -> list[str]:
        """Return every address the mail goes to, once each."""
        return list(dict.fromkeys([*self.to, *self.cc, *self.bcc]))


class Refusal(BaseModel):
    """A recipient that the server refused, with the server's words."""

    address: str
    reason: str


class EmailResult(BaseModel):
    """What became of the mail."""

    message_id: str
    accepted: list[str]
    refused: list[Refusal]
