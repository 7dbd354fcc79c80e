"""The shape of every error (RFC 9457)."""

from pydantic import BaseModel


class FieldError(BaseModel):
    """A field that is wrong: its dotted path, and what would be right."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """An error; `code` is stable and meant for machines, `request_id` finds it in the logs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []
