"""The client for an event loop: `AsyncTaskFlow`, the same as `TaskFlow` with `await`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from taskflow_client import files, waiting
from taskflow_client.aio_connection import AsyncConnection, AsyncGroup, Awaits, AwaitsAll, Streams
from taskflow_client.calls import access, platform, tasks, webhooks
from taskflow_client.errors import Problem, UnexpectedAnswer, Unreachable
from taskflow_client.exchange import Policy
from taskflow_client.models import LogLine, Task, TaskEvent
from taskflow_client.tokens import TokenStore


class Account(AsyncGroup):
    """One's own account and its sessions."""

    register = Awaits(access.register)
    me = Awaits(access.me)
    sessions = AwaitsAll(access.list_sessions)
    end_session = Awaits(access.end_session)
    logout_all = Awaits(access.logout_all)

    async def login(self, email: str, password: str) -> None:
        """Act as that user from now on."""
        await self._connection.act_as(await self.carry_out(access.login(email, password)))

    async def change_password(self, old_password: str, new_password: str) -> None:
        """Replace the password; every other session ends."""
        await self._connection.act_as(await self.carry_out(access.change_password(old_password, new_password)))

    async def logout(self) -> None:
        """End the login and forget its tokens."""
        store = self._connection.store
        with store.lock():
            tokens = store.load()
            store.save(None)
        if tokens is not None:
            await self.carry_out(access.logout(tokens.refresh))


class ApiKeys(AsyncGroup):
    """Keys for programs."""

    create = Awaits(access.create_api_key)
    list = AwaitsAll(access.list_keys)
    revoke = Awaits(access.revoke_api_key)


class Admin(AsyncGroup):
    """Accounts of others, for ADMIN."""

    users = Streams(access.list_users)
    user = Awaits(access.get_user)
    change_user = Awaits(access.change_user)
    security_events = Streams(access.list_security_events)


class Tasks(AsyncGroup):
    """Tasks and what belongs to them."""

    create = Awaits(tasks.create_task)
    batch = Awaits(tasks.create_batch_tasks)
    get = Awaits(tasks.get_task)
    list = Streams(tasks.list_tasks)
    page = Awaits(tasks.list_tasks)
    edit = Awaits(tasks.edit_task)
    delete = Awaits(tasks.remove_task)
    cancel = Awaits(tasks.cancel_task)
    retry = Awaits(tasks.retry_task)
    clone = Awaits(tasks.clone_task)
    bulk_retry = Awaits(tasks.bulk_retry_tasks)
    bulk_cancel = Awaits(tasks.bulk_cancel_tasks)
    attempts = AwaitsAll(tasks.list_attempts)
    files = AwaitsAll(tasks.list_files)
    types = AwaitsAll(tasks.list_task_types)
    past_events = Awaits(tasks.list_task_events)
    past_logs = Awaits(tasks.list_lines)

    def download(self, task_id: tasks.Id, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a file that a task made, in pieces."""
        return self._connection.pieces(tasks.download_file(task_id, name))

    async def save(self, task_id: tasks.Id, name: str, folder: Path) -> Path:
        """Store a file that a task made in `folder`, whole or not at all, and return its path.

        Raises:
            ValueError: the name is no plain file name.
        """
        with files.whole(folder, name) as part:
            async for piece in self.download(task_id, name):
                await asyncio.to_thread(part.sink.write, piece)
        return part.target

    async def events(
        self, task_id: tasks.Id, *, after: int | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[TaskEvent]:
        """Yield what happens to a task, from its beginning or after an event, until it has ended.

        Raises:
            DeadlinePassed: `timeout_s` seconds went by first.
        """
        start = "" if after is None else str(after)
        async for frame in self._connection.follow(tasks.list_task_events(task_id), after=start, timeout_s=timeout_s):
            yield TaskEvent.model_validate({"kind": frame.kind, **frame.data})

    async def logs(
        self,
        task_id: tasks.Id,
        *,
        level: str | None = None,
        attempt: int | None = None,
        after: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[LogLine]:
        """Yield what a task's handler logs, until the task has ended. Raises what `events` does."""
        call, start = tasks.list_lines(task_id, level=level, attempt=attempt), "" if after is None else str(after)
        async for frame in self._connection.follow(call, after=start, timeout_s=timeout_s):
            yield LogLine.model_validate(frame.data)

    async def wait(self, task_id: tasks.Id, *, timeout_s: float = 600.0) -> Task:
        """Return the task once it has ended: told by its events, or by looking again and again where there are none.

        Raises:
            DeadlinePassed: `timeout_s` seconds went by first.
        """
        deadline = waiting.Deadline(timeout_s)
        try:
            async for _ in self.events(task_id, timeout_s=timeout_s):
                pass
        except (Problem, Unreachable, UnexpectedAnswer):
            pass  # looking says what is the matter, or works
        while True:
            task = await self.get(task_id, wait_s=deadline.poll_s)
            if task.has_ended:
                return task
            deadline.check()
            await asyncio.sleep(deadline.pause_s())


class Events(AsyncGroup):
    """What happens to all tasks that one may see."""

    past = Awaits(tasks.list_events)

    async def follow(
        self,
        *,
        kind: str | None = None,
        queue: str | None = None,
        after: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[TaskEvent]:
        """Yield what happens from now on, or after an event, for ever or until DeadlinePassed."""
        call, start = tasks.list_events(kind=kind, queue=queue), "" if after is None else str(after)
        async for frame in self._connection.follow(call, after=start, timeout_s=timeout_s):
            yield TaskEvent.model_validate({"kind": frame.kind, **frame.data})


class Schedules(AsyncGroup):
    """Tasks by the clock."""

    create = Awaits(platform.create_schedule)
    get = Awaits(platform.get_schedule)
    list = Streams(platform.list_schedules)
    edit = Awaits(platform.edit_schedule)
    pause = Awaits(platform.pause_schedule)
    resume = Awaits(platform.resume_schedule)
    delete = Awaits(platform.remove_schedule)


class Queues(AsyncGroup):
    """How queues stand, and who may take from them."""

    list = AwaitsAll(platform.list_queues)
    pause = Awaits(platform.pause_queue)
    resume = Awaits(platform.resume_queue)


class Workers(AsyncGroup):
    """The processes that run tasks."""

    list = Streams(platform.list_workers)
    get = Awaits(platform.get_worker)


class Webhooks(AsyncGroup):
    """Addresses that events are sent to."""

    create = Awaits(webhooks.create_webhook)
    get = Awaits(webhooks.get_webhook)
    list = Streams(webhooks.list_webhooks)
    edit = Awaits(webhooks.change_webhook)
    delete = Awaits(webhooks.delete_webhook)
    rotate_secret = Awaits(webhooks.rotate_webhook_secret)
    enable = Awaits(webhooks.enable_webhook)
    disable = Awaits(webhooks.disable_webhook)
    test = Awaits(webhooks.test_webhook)
    deliveries = Streams(webhooks.list_webhook_deliveries)
    redeliver = Awaits(webhooks.redeliver_webhook)


class Platform(AsyncGroup):
    """The platform itself."""

    live = Awaits(platform.live)
    ready = Awaits(platform.ready)
    metrics = Awaits(platform.metrics)
    stats = Awaits(platform.get_stats)


class AsyncTaskFlow:
    """The API at one address, as one user; use it in an `async with`.

    `token` (an access token or an API key) is sent as it is; without one, `account.login` starts a login, kept in
    `store` and renewed by itself. Every call raises the errors of taskflow_client.errors.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        store: TokenStore | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        user_agent: str = "",
        trust_env: bool = True,
    ) -> None:
        connection = AsyncConnection(
            url, token=token, store=store, policy=policy, user_agent=user_agent, trust_env=trust_env
        )
        self.connection = connection
        self.account, self.api_keys, self.admin = Account(connection), ApiKeys(connection), Admin(connection)
        self.tasks, self.events, self.schedules = Tasks(connection), Events(connection), Schedules(connection)
        self.queues, self.workers, self.webhooks = Queues(connection), Workers(connection), Webhooks(connection)
        self.platform = Platform(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.close()
