"""EMAIL and the wire: STARTTLS, TLS from the first byte, certificates, logins."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from fake_context import FakeContext, context, run
from smtp_server import Mailbox, serving
from taskflow_core.database import Sessions
from taskflow_core.handlers import NonRetryable, Retry
from taskflow_core.settings import Settings, load
from taskflow_worker.types.email import smtp
from taskflow_worker.types.email.task import send_email

MAIL: dict[str, Any] = {"to": ["ada@example.com"], "subject": "Hi", "text": "Hello"}


@pytest.fixture(autouse=True)
def worker_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TASKFLOW_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("TASKFLOW_MAIL_FROM", "TaskFlow <noreply@example.com>")
    load.cache_clear()
    yield
    load.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TASKFLOW_SMTP_URL", url)
    load.cache_clear()


@pytest.fixture
async def ctx(sessions: Sessions) -> FakeContext:
    return await context(sessions, "EMAIL")


async def refusal(ctx: FakeContext, **fields: Any) -> NonRetryable:
    with pytest.raises(NonRetryable) as caught:
        await run(ctx, send_email, {**MAIL, **fields})
    return caught.value


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    return tls


def check_login(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"u", b"p:1")
    return AuthResult(success=right, handled=False)


async def test_starttls_is_used_when_offered_and_the_login_follows(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, authority: trustme.CA
) -> None:
    box = Mailbox()
    options: dict[str, Any] = {"tls_context": server_tls(authority, "127.0.0.1"), "require_starttls": True}
    async with serving(box, authenticator=check_login, auth_required=True, **options) as port:
        use(monkeypatch, f"smtp://u:p%3A1@127.0.0.1:{port}")
        await run(ctx, send_email, MAIL)
        assert box.sessions[0].ssl is not None
        use(monkeypatch, f"smtp://u:wrong@127.0.0.1:{port}")
        problem = await refusal(await context(ctx.sessions, "EMAIL"))
        assert problem.code == "smtp_auth_failed"
        assert "wrong" not in str(problem)


async def test_smtps_speaks_tls_from_the_first_byte(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, authority: trustme.CA
) -> None:
    box = Mailbox()
    async with serving(box, implicit=server_tls(authority, "127.0.0.1")) as port:
        use(monkeypatch, f"smtps://127.0.0.1:{port}")
        await run(ctx, send_email, MAIL)
    assert len(box.envelopes) == 1


@pytest.mark.parametrize("name", ["localhost", "other.example.com"])
async def test_the_certificate_of_a_server_elsewhere_is_checked(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path, name: str
) -> None:
    box = Mailbox()
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    monkeypatch.setattr(smtp.Server, "is_local", False)
    async with serving(box, tls_context=server_tls(authority, name)) as port:
        use(monkeypatch, f"smtp://localhost:{port}")
        if name == "localhost":
            await run(ctx, send_email, MAIL)
            assert box.sessions[0].ssl is not None
        else:
            with pytest.raises(Retry, match="certificate"):
                await run(ctx, send_email, MAIL)


async def test_a_password_is_never_sent_to_a_server_elsewhere_without_tls(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Mailbox()
    monkeypatch.setattr(smtp.Server, "is_local", False)
    async with serving(box, authenticator=check_login, auth_require_tls=False) as port:
        use(monkeypatch, f"smtp://u:p%3A1@localhost:{port}")
        problem = await refusal(ctx)
    assert problem.code == "smtp_insecure"
    assert box.envelopes == []
