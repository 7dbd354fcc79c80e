"""An SMTP server that delivers nothing: each message becomes a file, the newest thousand are kept.

Run as `python -m taskflow_cli.embedded.mailcatcher --port PORT --dir FOLDER`. The envelope is kept in `X-Envelope-*`
headers, because a message's own headers need not name its recipients.
"""

import argparse
import asyncio
import hashlib
import logging
import signal
from collections import deque
from email.parser import BytesHeaderParser
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from taskflow_cli.embedded.ports import LOCALHOST
from taskflow_core.clock import utc_now
from taskflow_core.logs import configure_logs, get_logger

MAX_BYTES = 10 * 1024 * 1024
MAX_MESSAGES = 1_000
MAX_RECIPIENTS = 1_000

log = get_logger(__name__)


class Mailbox:
    """A folder of `.eml` files, oldest first by name."""

    def __init__(self, folder: Path, *, limit: int = MAX_MESSAGES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob("*.unfinished"):
            unfinished.unlink()
        self._folder = folder
        self._limit = limit
        self._names = deque(sorted(path.name for path in folder.glob("*.eml")))

    def store(self, content: bytes, *, sender: str, recipients: list[str]) -> str:
        """Write the message, drop the oldest past the bound, and return the file's name.

        Raises:
            OSError: the disk is full or the folder is gone.
        """
        message_id = str(BytesHeaderParser().parsebytes(content).get("Message-ID", ""))
        digest = hashlib.sha256(message_id.encode(errors="replace") or content).hexdigest()[:12]
        name = f"{utc_now():%Y%m%dT%H%M%S.%fZ}-{digest}.eml"
        envelope = [f"X-Envelope-From: {sender}", *(f"X-Envelope-To: {recipient}" for recipient in recipients)]
        unfinished = self._folder / f"{name}.unfinished"
        unfinished.write_bytes("".join(f"{line}\r\n" for line in envelope).encode() + content)
        unfinished.rename(self._folder / name)
        self._names.append(name)
        while len(self._names) > self._limit:
            (self._folder / self._names.popleft()).unlink(missing_ok=True)
        return name


class Handler:
    """What aiosmtpd calls for each step of a delivery."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_RCPT(  # noqa: N802 aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take one more recipient, up to the bound."""
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 as above
        """Store the message and say so only when it is on the disk."""
        content = bytes(envelope.original_content or b"")
        try:
            name = self._mailbox.store(content, sender=str(envelope.mail_from), recipients=envelope.rcpt_tos)
        except OSError as error:
            log.exception("mail.refused", reason=error.strerror)
            return "452 4.3.1 Insufficient system storage"
        log.info("mail.stored", file=name, size=len(content), recipients=len(envelope.rcpt_tos))
        return f"250 2.0.0 OK {name}"


async def serve(port: int, folder: Path) -> None:
    """Catch mail until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    handler = Handler(Mailbox(folder))
    server = await loop.create_server(
        lambda: SMTP(handler, data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, hostname="localhost"),
        LOCALHOST,
        port,
    )
    log.info("mailcatcher.started", port=port, folder=str(folder))
    await stopping.wait()
    server.close()
    log.info("mailcatcher.stopped")


def main() -> None:
    """Read the command line and catch mail."""
    parser = argparse.ArgumentParser(prog="mailcatcher", description="Keep each message that arrives as a file.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    arguments = parser.parse_args()
    configure_logs(level="info", style="console", service="mail")
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd tells every command of every client
    asyncio.run(serve(arguments.port, arguments.dir))


if __name__ == "__main__":
    main()
