"""A real SMTP server on 127.0.0.1 that keeps what it takes and answers as a test wants."""

import asyncio
import ssl
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class Mailbox:
    """A mail server's memory: what it took, and how it shall answer."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []
        self.refuse: dict[str, str] = {}
        self.data_answer = "250 OK"
        self.asked = 0
        self.hold: asyncio.Event | None = None

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.data_answer.startswith("250"):
            self.envelopes.append(envelope)
            self.sessions.append(session)
        return self.data_answer

    async def is_asked(self) -> bool:
        """Whether a mail's content has come."""
        return self.asked > 0

    def message(self, number: int = 0) -> EmailMessage:
        content = self.envelopes[number].content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


class serving:  # noqa: N801 (reads as a verb where it is used)
    """Serve a mailbox on a free port of 127.0.0.1."""

    def __init__(self, box: Mailbox, **options: Any) -> None:
        self.implicit: ssl.SSLContext | None = options.pop("implicit", None)
        self.factory = lambda: SMTP(box, hostname="test", loop=asyncio.get_running_loop(), **options)

    async def __aenter__(self) -> int:
        self.server = await asyncio.get_running_loop().create_server(self.factory, "127.0.0.1", 0, ssl=self.implicit)
        return int(self.server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()
