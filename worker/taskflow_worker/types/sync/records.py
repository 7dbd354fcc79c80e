"""Records out of documents, and what makes one fit to be kept: pure, no IO."""

import csv
import io
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NoReturn

MAX_RECORD_BYTES = 256 * 1024
MAX_KEY = 500
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Malformed(Exception):
    """A document is not what the payload says it is."""


class Unfit(Exception):
    """One record cannot be kept; the rest can."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record ready to be kept: its key and its canonical JSON (sorted keys, no spaces)."""

    key: str
    text: str

    @property
    def digest(self) -> bytes:
        """Return the sha256 of the canonical JSON."""
        return sha256(self.text.encode()).digest()


def at(document: Any, path: str | None) -> Any:
    """Return what the dotted path leads to (names for objects, numbers for lists), or None where it ends early."""
    for step in path.split(".") if path else ():
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and re.fullmatch(r"[0-9]{1,9}", step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def parse_json(body: bytes) -> Any:
    """Return the document. Raises Malformed: it is not JSON, or nested too deep."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the answer is not JSON ({type(error).__name__})") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def records_of(document: Any, path: str | None) -> list[Any]:
    """Return the list of records inside a JSON document. Raises Malformed: there is none at that path."""
    found = at(document, path)
    if not isinstance(found, list):
        where = f"records_path {path!r} leads to" if path else "without records_path the document must be a list, not"
        raise Malformed(f"{where} {type(found).__name__}")
    return found


def parse_csv(body: bytes, charset: str) -> list[Any]:
    """Return a dictionary of strings for each row below the header.

    Raises:
        Malformed: not text in that charset, not CSV, or a header with an empty or repeated name.
    """
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig" if charset == "utf-8" else charset)), strict=True)
        rows = [row for row in lines if row]
    except (UnicodeDecodeError, LookupError, csv.Error) as error:
        raise Malformed(f"the answer is not CSV in {charset}: {error}") from error
    header = rows[0] if rows else []
    if len(set(header)) < len(header) or "" in header:
        raise Malformed("the CSV header has an empty or a repeated name")
    return [dict(zip(header, row, strict=True)) if len(row) == len(header) else row for row in rows[1:]]


def fit(record: Any, key_path: str) -> Record:
    """Return the record ready to be kept.

    Raises:
        Unfit: it has no key, is not an object, or holds what PostgreSQL's jsonb cannot.
    """
    if not isinstance(record, dict):
        raise Unfit("is not an object" if not isinstance(record, list) else "has not as many fields as the header")
    key = record[key_path] if key_path in record else at(record, key_path)  # a CSV column may have a dot in its name
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise Unfit(f"has no text or whole number at {key_path!r}")
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:
        raise Unfit("holds a number or a character that JSON cannot") from error
    if NUL.search(text):
        raise Unfit("holds U+0000, which cannot be stored")
    if len(str(key)) > MAX_KEY or size > MAX_RECORD_BYTES:
        raise Unfit(f"is larger than {MAX_RECORD_BYTES} bytes, or its key than {MAX_KEY} characters")
    return Record(str(key), text)
