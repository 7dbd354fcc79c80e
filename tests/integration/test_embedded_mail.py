"""The mail catcher, reached over SMTP."""

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from taskflow_cli.embedded import mailcatcher
from taskflow_cli.embedded.ports import free_port
from waiting import eventually


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[tuple[smtplib.SMTP, Path]]:
    """Run a mail catcher and connect to it."""
    port, folder = free_port(), tmp_path / "mail"
    command = [sys.executable, "-m", mailcatcher.__name__, "--port", str(port), "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def connect() -> smtplib.SMTP | None:
        try:
            return smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30)
        except ConnectionRefusedError:
            return None

    client = eventually(connect)
    assert client is not None
    yield client, folder
    client.close()
    process.terminate()
    assert process.wait(timeout=30) == 0


def message(subject: str, **headers: str) -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = subject, "ada@example.com", "shown@example.com"
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content("Grüße\n")
    return made


def test_a_message_is_kept_with_its_envelope(mail: tuple[smtplib.SMTP, Path]) -> None:
    client, folder = mail
    client.send_message(
        message("Hello", Message_ID="<1@example.com>"), "ada@example.com", ["bob@example.com", "c@d.test"]
    )
    (path,) = folder.iterdir()
    kept = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert kept["Subject"] == "Hello"
    assert kept["X-Envelope-From"] == "ada@example.com"
    assert kept.get_all("X-Envelope-To") == ["bob@example.com", "c@d.test"]
    assert kept.get_content().splitlines() == ["Grüße"]


def test_a_message_over_the_bound_is_refused_and_the_next_one_kept(mail: tuple[smtplib.SMTP, Path]) -> None:
    client, folder = mail
    huge = message("Huge").as_bytes() + b"x" * 70 * (mailcatcher.MAX_BYTES // 70 + 1)
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        client.sendmail("ada@example.com", ["bob@example.com"], huge)
    assert refused.value.smtp_code == 552
    client.send_message(message("Small"))
    assert len(list(folder.iterdir())) == 1


def test_one_message_has_a_bounded_number_of_recipients(mail: tuple[smtplib.SMTP, Path]) -> None:
    client, _ = mail
    client.ehlo()
    client.mail("ada@example.com")
    codes = [client.rcpt(f"user{number}@example.com")[0] for number in range(mailcatcher.MAX_RECIPIENTS + 1)]
    assert set(codes[:-1]) == {250}
    assert codes[-1] == 452


def test_the_newest_messages_are_kept_over_a_restart(tmp_path: Path) -> None:
    def store(mailbox: mailcatcher.Mailbox, number: int) -> str:
        return mailbox.store(message(str(number)).as_bytes(), sender="ada@example.com", recipients=["bob@example.com"])

    (tmp_path / "cut-short.eml.unfinished").touch()
    first = mailcatcher.Mailbox(tmp_path, limit=3)
    names = [store(first, number) for number in range(3)]
    second = mailcatcher.Mailbox(tmp_path, limit=3)
    names += [store(second, number) for number in range(3, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names[-3:]


def test_the_same_message_id_gives_files_with_the_same_hash(tmp_path: Path) -> None:
    mailbox = mailcatcher.Mailbox(tmp_path)
    content = message("Twice", Message_ID="<2@example.com>").as_bytes()
    names = [mailbox.store(content, sender="", recipients=[]) for _ in range(2)]
    assert len({name.rpartition("-")[2] for name in names}) == 1
    assert len(list(tmp_path.iterdir())) == 2
