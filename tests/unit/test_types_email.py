"""EMAIL without IO: what a payload may hold, how templates are bounded, how the server's URL is read."""

import base64
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskflow_core.handlers import NonRetryable
from taskflow_core.identifiers import new_id
from taskflow_core.models.effects import EmailSend
from taskflow_worker.types.email.child import render
from taskflow_worker.types.email.message import Attached, assemble
from taskflow_worker.types.email.models import ADDRESS, MAX_INLINE_BYTES, EmailPayload
from taskflow_worker.types.email.smtp import parse_server

MAIL: dict[str, Any] = {"to": ["a@example.com"], "subject": "Hi", "text": "Hello"}


def problems(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        EmailPayload.model_validate({**MAIL, **fields})
    return str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "a@b\r\nRCPT TO:<x@y>",
        "a b@example.com",
        "Ada <a@example.com>",
        "a@",
        "@example.com",
        "a@b>c",
        "a",
        ".@example.com",
        "a..b@example.com",
        "a@b..c",
        "a@-b",
        '"a b"@example.com',
        "a@[127.0.0.1]",
    ],
)
def test_an_address_that_could_carry_a_command_is_refused(address: str) -> None:
    assert "to.0" in problems(to=[address])
    assert "reply_to" in problems(reply_to=address)


@pytest.mark.parametrize("separator", ["\r\n", "\n", "\r", "\x00", "\x85", "\u2028"])
def test_a_subject_of_more_than_one_line_is_refused(separator: str) -> None:
    assert "subject" in problems(subject=f"Hi{separator}Bcc: x@example.com")


def test_a_mail_needs_a_body() -> None:
    assert "give text, html or both" in problems(text=None)


def test_recipients_are_bounded_alone_and_together() -> None:
    fifty = [f"u{n}@example.com" for n in range(51)]
    assert "to" in problems(to=fifty)
    many = [f"u{n}@example.com" for n in range(50)]
    others = [f"v{n}@example.com" for n in range(50)]
    assert "at most 100 addresses" in problems(to=many, cc=others, bcc=["x@example.com"])


def test_an_inline_attachment_is_bounded_and_must_be_base64() -> None:
    large = base64.b64encode(bytes(MAX_INLINE_BYTES // 2 + 1)).decode()
    one = {"name": "a.bin", "content": large}
    assert "attach a report instead" in problems(attachments=[one, one])
    assert "attachments.0.inline.content" in problems(attachments=[{"name": "a", "content": "no base64"}])
    assert "attachments.0.inline.name" in problems(attachments=[{"name": "../a", "content": ""}])
    assert "attachments.0.report.report_task_id" in problems(attachments=[{"report_task_id": "x"}])


def test_a_payload_survives_being_dumped_and_read_again() -> None:
    payload = EmailPayload.model_validate(
        {**MAIL, "attachments": [{"name": "a.txt", "content": "YQ=="}], "variables": {"a": [1]}}
    )
    assert EmailPayload.model_validate(payload.model_dump(mode="json")) == payload


def test_html_is_escaped_and_text_is_not() -> None:
    answer = render({"text": "{{ a }}", "html": "<p>{{ a }}</p>"}, {"a": "<b>"})
    assert answer == {"texts": {"text": "<b>", "html": "<p>&lt;b&gt;</p>"}}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{% for %}", "text, line 1"),
        ("{{ ().__class__.__mro__ }}", "SecurityError"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{% include 'x' %}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "text"),
        ("{% for i in range(99999) %}" + "x" * 100 + "{% endfor %}", "longer than"),
    ],
)
def test_a_bad_template_is_named(template: str, words: str) -> None:
    problem = render({"text": template}, {})["problem"]
    assert words in problem
    assert problem.startswith("text")


@given(st.dictionaries(st.from_regex(r"v[0-9]{1,3}", fullmatch=True), st.text(max_size=50), max_size=3))
def test_rendered_text_holds_the_variables_as_they_are(variables: dict[str, str]) -> None:
    template = "".join(f"{{{{ {name} }}}}" for name in variables)
    assert render({"text": template}, variables) == {"texts": {"text": "".join(variables.values())}}


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user"),
    [
        ("smtp://mail.example.com", "mail.example.com", 25, False, None),
        ("smtp://u%40x:p%3A1@mail.example.com", "mail.example.com", 587, False, "u@x"),
        ("smtps://u:p@mail.example.com", "mail.example.com", 465, True, "u"),
        ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, False, None),
    ],
)
def test_the_server_is_read_from_a_url(url: str, host: str, port: int, tls: bool, user: str | None) -> None:
    server = parse_server(url)
    assert (server.host, server.port, server.tls, server.username) == (host, port, tls, user)
    assert server.is_local == host.startswith("127.")
    assert "p:1" not in repr(server)


@pytest.mark.parametrize("url", ["", "mail:25", "http://mail", "smtp://", "smtp://mail:99999"])
def test_a_wrong_server_url_says_how_it_should_look(url: str) -> None:
    with pytest.raises(NonRetryable, match="TASKFLOW_SMTP_URL must look like") as caught:
        parse_server(url)
    assert caught.value.code == "smtp_not_configured"


one_line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=120)
addresses = st.from_regex(ADDRESS.replace("{1,64}", "{1,5}").rstrip("$"), fullmatch=True).filter(lambda a: len(a) < 255)


@given(one_line, st.lists(addresses, min_size=1, max_size=3), one_line, st.text(st.characters(codec="utf-8")))
def test_no_subject_address_file_name_or_text_adds_a_header(
    subject: str, to: list[str], file_name: str, body: str
) -> None:
    payload = EmailPayload.model_validate({"to": to, "subject": "x", "text": "x"})
    record = EmailSend(task_id=new_id(), message_id="<1@taskflow>", recipients=[], created_at=datetime.now(UTC))
    attached = [Attached(file_name, "text/plain", b"data")]
    content = assemble(payload, record, {"subject": subject, "text": body}, attached, "TaskFlow <a@example.com>")
    content.decode("ascii")
    message = message_from_bytes(content, policy=policy.default)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    assert len(list(message.walk())) == 3
