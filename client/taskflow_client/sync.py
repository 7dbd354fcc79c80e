"""The client for threads: `TaskFlow`. Several threads may share one."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from taskflow_client import files, waiting
from taskflow_client.calls import access, platform, tasks, webhooks
from taskflow_client.errors import Problem, UnexpectedAnswer, Unreachable
from taskflow_client.exchange import Policy
from taskflow_client.models import LogLine, Task, TaskEvent
from taskflow_client.sync_connection import All, Connection, Does, Group, Lists
from taskflow_client.tokens import TokenStore


class Account(Group):
    """One's own account and its sessions."""

    register = Does(access.register)
    me = Does(access.me)
    sessions = All(access.list_sessions)
    end_session = Does(access.end_session)
    logout_all = Does(access.logout_all)

    def login(self, email: str, password: str) -> None:
        """Act as that user from now on."""
        self._connection.act_as(self.carry_out(access.login(email, password)))

    def change_password(self, old_password: str, new_password: str) -> None:
        """Replace the password; every other session ends."""
        self._connection.act_as(self.carry_out(access.change_password(old_password, new_password)))

    def logout(self) -> None:
        """End the login and forget its tokens."""
        store = self._connection.store
        with store.lock():
            tokens = store.load()
            store.save(None)
        if tokens is not None:
            self.carry_out(access.logout(tokens.refresh))


class ApiKeys(Group):
    """Keys for programs."""

    create = Does(access.create_api_key)
    list = All(access.list_keys)
    revoke = Does(access.revoke_api_key)


class Admin(Group):
    """Accounts of others, for ADMIN."""

    users = Lists(access.list_users)
    user = Does(access.get_user)
    change_user = Does(access.change_user)
    security_events = Lists(access.list_security_events)


class Tasks(Group):
    """Tasks and what belongs to them."""

    create = Does(tasks.create_task)
    batch = Does(tasks.create_batch_tasks)
    get = Does(tasks.get_task)
    list = Lists(tasks.list_tasks)
    page = Does(tasks.list_tasks)
    edit = Does(tasks.edit_task)
    delete = Does(tasks.remove_task)
    cancel = Does(tasks.cancel_task)
    retry = Does(tasks.retry_task)
    clone = Does(tasks.clone_task)
    bulk_retry = Does(tasks.bulk_retry_tasks)
    bulk_cancel = Does(tasks.bulk_cancel_tasks)
    attempts = All(tasks.list_attempts)
    files = All(tasks.list_files)
    types = All(tasks.list_task_types)
    past_events = Does(tasks.list_task_events)
    past_logs = Does(tasks.list_lines)

    def download(self, task_id: tasks.Id, name: str) -> Iterator[bytes]:
        """Yield the content of a file that a task made, in pieces."""
        return self._connection.pieces(tasks.download_file(task_id, name))

    def save(self, task_id: tasks.Id, name: str, folder: Path) -> Path:
        """Store a file that a task made in `folder`, whole or not at all, and return its path.

        Raises:
            ValueError: the name is no plain file name.
        """
        with files.whole(folder, name) as part:
            for piece in self.download(task_id, name):
                part.sink.write(piece)
        return part.target

    def events(
        self, task_id: tasks.Id, *, after: int | None = None, timeout_s: float | None = None
    ) -> Iterator[TaskEvent]:
        """Yield what happens to a task, from its beginning or after an event, until it has ended.

        Raises:
            DeadlinePassed: `timeout_s` seconds went by first.
        """
        start = "" if after is None else str(after)
        for frame in self._connection.follow(tasks.list_task_events(task_id), after=start, timeout_s=timeout_s):
            yield TaskEvent.model_validate({"kind": frame.kind, **frame.data})

    def logs(
        self,
        task_id: tasks.Id,
        *,
        level: str | None = None,
        attempt: int | None = None,
        after: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[LogLine]:
        """Yield what a task's handler logs, until the task has ended. Raises what `events` does."""
        call, start = tasks.list_lines(task_id, level=level, attempt=attempt), "" if after is None else str(after)
        for frame in self._connection.follow(call, after=start, timeout_s=timeout_s):
            yield LogLine.model_validate(frame.data)

    def wait(self, task_id: tasks.Id, *, timeout_s: float = 600.0) -> Task:
        """Return the task once it has ended: told by its events, or by looking again and again where there are none.

        Raises:
            DeadlinePassed: `timeout_s` seconds went by first.
        """
        deadline = waiting.Deadline(timeout_s)
        try:
            for _ in self.events(task_id, timeout_s=timeout_s):
                pass
        except (Problem, Unreachable, UnexpectedAnswer):
            pass  # looking says what is the matter, or works
        while True:
            task = self.get(task_id, wait_s=deadline.poll_s)
            if task.has_ended:
                return task
            deadline.check()
            time.sleep(deadline.pause_s())


class Events(Group):
    """What happens to all tasks that one may see."""

    past = Does(tasks.list_events)

    def follow(
        self,
        *,
        kind: str | None = None,
        queue: str | None = None,
        after: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[TaskEvent]:
        """Yield what happens from now on, or after an event, for ever or until DeadlinePassed."""
        call, start = tasks.list_events(kind=kind, queue=queue), "" if after is None else str(after)
        for frame in self._connection.follow(call, after=start, timeout_s=timeout_s):
            yield TaskEvent.model_validate({"kind": frame.kind, **frame.data})


class Schedules(Group):
    """Tasks by the clock."""

    create = Does(platform.create_schedule)
    get = Does(platform.get_schedule)
    list = Lists(platform.list_schedules)
    edit = Does(platform.edit_schedule)
    pause = Does(platform.pause_schedule)
    resume = Does(platform.resume_schedule)
    delete = Does(platform.remove_schedule)


class Queues(Group):
    """How queues stand, and who may take from them."""

    list = All(platform.list_queues)
    pause = Does(platform.pause_queue)
    resume = Does(platform.resume_queue)


class Workers(Group):
    """The processes that run tasks."""

    list = Lists(platform.list_workers)
    get = Does(platform.get_worker)


class Webhooks(Group):
    """Addresses that events are sent to."""

    create = Does(webhooks.create_webhook)
    get = Does(webhooks.get_webhook)
    list = Lists(webhooks.list_webhooks)
    edit = Does(webhooks.change_webhook)
    delete = Does(webhooks.delete_webhook)
    rotate_secret = Does(webhooks.rotate_webhook_secret)
    enable = Does(webhooks.enable_webhook)
    disable = Does(webhooks.disable_webhook)
    test = Does(webhooks.test_webhook)
    deliveries = Lists(webhooks.list_webhook_deliveries)
    redeliver = Does(webhooks.redeliver_webhook)


class Platform(Group):
    """The platform itself."""

    live = Does(platform.live)
    ready = Does(platform.ready)
    metrics = Does(platform.metrics)
    stats = Does(platform.get_stats)


class TaskFlow:
    """The API at one address, as one user; use it in a `with`.

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
        connection = Connection(
            url, token=token, store=store, policy=policy, user_agent=user_agent, trust_env=trust_env
        )
        self.connection = connection
        self.account, self.api_keys, self.admin = Account(connection), ApiKeys(connection), Admin(connection)
        self.tasks, self.events, self.schedules = Tasks(connection), Events(connection), Schedules(connection)
        self.queues, self.workers, self.webhooks = Queues(connection), Workers(connection), Webhooks(connection)
        self.platform = Platform(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()
