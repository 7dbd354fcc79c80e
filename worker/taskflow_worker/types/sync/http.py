"""One HTTP exchange of a sync: it can be canceled while it waits, and its answer says what becomes of the task."""

import asyncio
from collections.abc import Mapping

from taskflow_core.clock import utc_now
from taskflow_core.fetch import Client, Fetched, FetchFailed, FetchRefused, retry_after
from taskflow_core.handlers import Context, NonRetryable, Retry

CANCEL_POLL_S = 0.25


async def request(
    ctx: Context,
    client: Client,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
) -> Fetched:
    """Make one request, watching for cancellation.

    Raises:
        NonRetryable: the URL, its address, its redirects or the size of the answer is refused.
        Retry: the network failed.
        TaskCanceled: the task was asked to stop.
    """
    call = asyncio.ensure_future(client.request(method, url, headers=headers, content=content))
    try:
        while not call.done():
            await asyncio.wait({call}, timeout=CANCEL_POLL_S)
            ctx.check_cancel()
        return call.result()
    except FetchRefused as error:
        raise NonRetryable(str(error), code=error.code) from error
    except FetchFailed as error:
        raise Retry(str(error)) from error
    finally:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


def check(answer: Fetched, *, side: str) -> None:
    """Raise for an answer that is no success. `side` is "source" or "target".

    Raises:
        Retry: 408, 429 or 5xx, after Retry-After if given (at most an hour).
        NonRetryable: `<side>_refused`, any other.
    """
    if 200 <= answer.status < 300:
        return
    words = f"the {side} answered {answer.status}"
    if answer.status in {408, 429} or answer.status >= 500:
        raise Retry(words, after=retry_after(answer.headers.get("retry-after"), now=utc_now()))
    raise NonRetryable(words, code=f"{side}_refused")
