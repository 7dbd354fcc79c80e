"""The conversation with the SMTP server, and what its answers mean for the task."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parseaddr
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import aiosmtplib

from taskflow_core.handlers import NonRetryable, Retry
from taskflow_core.settings import WorkerSettings, load

STEP_S = 30.0
HINT = "TASKFLOW_SMTP_URL must look like smtp://user:password@host:587 or smtps://user:password@host:465"


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail goes. `tls` is TLS from the first byte; otherwise STARTTLS is used when offered."""

    host: str
    port: int
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is this machine, whose certificate and wire need no check."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


def configured_server() -> Server:
    """Return the server that the worker's settings name.

    Raises:
        NonRetryable: smtp_not_configured.
    """
    url = load(WorkerSettings).smtp_url
    if url is None:
        raise NonRetryable(f"this worker has no mail server; {HINT}", code="smtp_not_configured")
    return parse_server(url.get_secret_value())


def parse_server(url: str) -> Server:
    """Return the server of a URL. The port is 465 for smtps, 587 with a user name, else 25.

    Raises:
        NonRetryable: smtp_not_configured, without the URL, which holds a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"smtp", "smtps"}:
        raise NonRetryable(HINT, code="smtp_not_configured")
    tls = parts.scheme == "smtps"
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return Server(host, port or (465 if tls else 587 if username else 25), tls, username, password)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[aiosmtplib.SMTP]:
    """Connect, encrypt, log in; say goodbye at the end.

    A password never crosses a network in the clear: with a user name, and unless the server is this machine,
    STARTTLS is demanded.

    Raises:
        NonRetryable: smtp_auth_failed, smtp_rejected, smtp_insecure.
        Retry: the server is away or asks to come back.
    """
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.tls,
        start_tls=True
        if server.username and not server.tls and not server.is_local
        else (False if server.tls else None),
        validate_certs=not server.is_local,
        local_hostname=socket.gethostname(),
        timeout=STEP_S,
    )
    try:
        await client.connect()
    except (aiosmtplib.SMTPException, OSError) as error:
        client.close()
        raise _meaning(error) from error
    async with client:
        yield client


async def deliver(client: aiosmtplib.SMTP, message: bytes, recipients: Sequence[str]) -> dict[str, str]:
    """Send the mail; return the recipients that were refused while others were accepted, with the server's words.

    Raises:
        NonRetryable: smtp_rejected, the server refused the mail or every recipient for good (5xx).
        Retry: it refused for now (4xx), or the connection was lost.
    """
    sender = parseaddr(load(WorkerSettings).mail_from)[1]
    try:
        refused, _ = await client.sendmail(sender, list(recipients), message)
    except aiosmtplib.SMTPException as error:
        raise _meaning(error) from error
    return {address: _words(answer.code, answer.message) for address, answer in refused.items()}


def _meaning(error: aiosmtplib.SMTPException | OSError) -> Exception:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        words = "; ".join(f"{one.recipient}: {_words(one.code, one.message)}" for one in error.recipients[:5])
        for_good = all(one.code >= 500 for one in error.recipients)
        return NonRetryable(words, code="smtp_rejected") if for_good else Retry(words)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        words = _words(error.code, error.message)
        code = "smtp_auth_failed" if isinstance(error, aiosmtplib.SMTPAuthenticationError) else "smtp_rejected"
        return NonRetryable(words, code=code) if error.code >= 500 else Retry(words)
    if isinstance(error, OSError):
        return Retry(str(error))
    return NonRetryable(str(error), code="smtp_insecure" if "STARTTLS" in str(error) else "smtp_rejected")


def _words(code: int, message: str) -> str:
    return f"{code} {' '.join(str(message).split())[:300]}"
