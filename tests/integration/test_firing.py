"""Schedules fire: once, whoever fires them; what was missed goes by its policy; what is broken pauses."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, model_validator
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api_app import REGISTRY
from children import Children
from fake_context import add_user
from taskflow_core import cron, firing, schedules
from taskflow_core.actors import Actor
from taskflow_core.cron import Misfire
from taskflow_core.database import Sessions
from taskflow_core.firing import Firing, Outcome
from taskflow_core.handlers import Context, Registry, task_type
from taskflow_core.models.runtime import Schedule
from taskflow_core.models.tasks import Task
from taskflow_core.models.users import Role
from taskflow_core.schedules import NewSchedule
from waiting import eventually, eventually_async

LEAP_DAY = cron.first("0 0 29 2 *", "UTC", after=datetime.now(UTC))
LETTER = {"type": "LETTER", "payload": {"to": ["bob"]}}
LATE = "UPDATE schedules SET next_fire_at = date_trunc('second', now()) - CAST(:late AS interval) WHERE id = :id"


class Strict(BaseModel):
    to: list[str]
    subject: str


class Anything(BaseModel):
    value: Any = None


class Rude(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _raise(cls, value: Any) -> Any:
        raise RuntimeError("rude")


@task_type("LETTER")
def strict_letter(ctx: Context, payload: Strict) -> None: ...


@task_type("LETTER")
def rude_letter(ctx: Context, payload: Rude) -> None: ...


class Owner:
    """Makes schedules, lets them become due, fires them."""

    def __init__(self, sessions: Sessions, user_id: UUID) -> None:
        self.sessions = sessions
        self.actor = Actor(user_id, Role.USER)

    async def add(
        self,
        *,
        late: timedelta | None = None,
        misfire: Misfire = Misfire.SKIP,
        registry: Registry = REGISTRY,
        **task: Any,
    ) -> UUID:
        new = NewSchedule(name="s", cron="0 0 29 2 *", timezone="UTC", misfire=misfire, template=LETTER | task)
        async with self.sessions() as session:
            schedule = await schedules.create(session, new, actor=self.actor, registry=registry)
            if late is not None:
                await session.execute(text(LATE), {"late": late, "id": schedule.id})
            await session.commit()
        return schedule.id

    async def fire(self, registry: Registry = REGISTRY, *, max_pending: int = 1000) -> Firing | None:
        async with self.sessions() as session:
            fired = await firing.fire_next(session, registry, max_pending=max_pending)
            await session.commit()
        return fired

    async def get(self, schedule_id: UUID) -> Schedule:
        async with self.sessions() as session:
            return await schedules.get(session, schedule_id, actor=self.actor)

    async def tasks(self) -> list[Task]:
        async with self.sessions() as session:
            return list((await session.execute(text("SELECT * FROM tasks ORDER BY fire_at"))).all())  # type: ignore[arg-type]

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.sessions() as session:
            await session.execute(text(statement), values)
            await session.commit()


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return Owner(sessions, await add_user(sessions))


async def test_nothing_fires_before_its_time(owner: Owner) -> None:
    schedule_id = await owner.add()
    assert await owner.fire() is None
    upcoming = (await owner.get(schedule_id)).next_fire_at
    assert upcoming is not None
    assert (upcoming.month, upcoming.day, upcoming.hour, upcoming.minute, upcoming.second) == (2, 29, 0, 0, 0)


async def test_a_firing_makes_a_task_of_the_template_and_moves_on(owner: Owner) -> None:
    schedule_id = await owner.add(late=timedelta(seconds=5), title="Hi", queue="low", priority=3, tags=["a"])
    due = (await owner.get(schedule_id)).next_fire_at
    fired = await owner.fire()
    assert fired is not None
    assert fired.task is not None
    assert (fired.schedule_id, fired.fire_at, fired.outcome) == (schedule_id, due, Outcome.FIRED)
    (task,) = await owner.tasks()
    assert (task.id, task.owner_id, task.status) == (fired.task.id, owner.actor.user_id, "PENDING")
    assert (task.schedule_id, task.fire_at, task.enqueued_at) == (schedule_id, due, fired.task.enqueued_at)
    assert (task.type, task.title, task.lane, task.tags, task.timeout_s) == ("LETTER", "Hi", "low:high", ["a"], 77)
    assert task.payload == {"to": ["bob"], "copies": 1, "extra": {}}
    after = await owner.get(schedule_id)
    assert (after.last_fire_at, after.next_fire_at) == (due, LEAP_DAY)
    assert await owner.fire() is None


@pytest.mark.parametrize(("misfire", "tasks"), [(Misfire.SKIP, 0), (Misfire.FIRE_ONCE, 1)])
async def test_what_was_missed_goes_by_its_policy(owner: Owner, misfire: Misfire, tasks: int) -> None:
    schedule_id = await owner.add(late=timedelta(hours=3), misfire=misfire)
    due = (await owner.get(schedule_id)).next_fire_at
    fired = await owner.fire()
    assert fired is not None
    assert fired.outcome is (Outcome.FIRED if tasks else Outcome.SKIPPED)
    assert [task.fire_at for task in await owner.tasks()] == [due] * tasks
    upcoming = (await owner.get(schedule_id)).next_fire_at
    assert upcoming is not None
    assert upcoming == LEAP_DAY
    assert await owner.fire() is None


async def test_twenty_schedulers_at_once_fire_each_schedule_once(owner: Owner) -> None:
    due = {await owner.add(late=timedelta(seconds=1)) for _ in range(10)}

    async def work() -> list[UUID]:
        fired = []
        while (one := await owner.fire()) is not None:
            fired.append(one.schedule_id)
        return fired

    found = [schedule_id for one in await asyncio.gather(*(work() for _ in range(8))) for schedule_id in one]
    assert (sorted(found), len(await owner.tasks())) == (sorted(due), 10)


async def test_a_scheduler_that_dies_before_its_commit_leaves_the_firing_to_another(owner: Owner) -> None:
    await owner.add(late=timedelta(seconds=1))
    async with owner.sessions() as dying:
        assert (await _fire(dying)) is not None
        assert await owner.fire() is None, "the row is locked, others pass by"
    fired = await owner.fire()
    assert fired is not None
    assert fired.outcome is Outcome.FIRED
    assert len(await owner.tasks()) == 1


async def test_a_moment_whose_task_exists_makes_no_second_one(owner: Owner) -> None:
    schedule_id = await owner.add(late=timedelta(seconds=5))
    first = await owner.fire()
    assert first is not None
    await owner.execute("UPDATE schedules SET next_fire_at = :at WHERE id = :id", at=first.fire_at, id=schedule_id)
    again = await owner.fire()
    assert again is not None
    assert (again.outcome, again.reason) == (Outcome.SKIPPED, "its task exists already")
    assert len(await owner.tasks()) == 1
    assert await owner.fire() is None


async def test_a_firing_is_skipped_while_the_task_of_its_dedup_key_goes_on(owner: Owner) -> None:
    schedule_id = await owner.add(late=timedelta(seconds=5), dedup_key="one")
    await owner.fire()
    await owner.execute(
        "UPDATE schedules SET next_fire_at = now() - interval '1 second' WHERE id = :id", id=schedule_id
    )
    again = await owner.fire()
    assert again is not None
    assert again.outcome is Outcome.SKIPPED
    assert "dedup_key" in again.reason
    assert await owner.fire() is None


async def test_a_firing_is_skipped_while_its_owner_has_too_many_unfinished_tasks(owner: Owner) -> None:
    schedule_id = await owner.add(late=timedelta(seconds=5))
    skipped = await owner.fire(max_pending=0)
    assert skipped is not None
    assert skipped.outcome is Outcome.SKIPPED
    assert (await owner.get(schedule_id)).paused_at is None


@pytest.mark.parametrize(
    ("registry", "change", "reason"),
    [
        pytest.param(Registry({}), "", "no such task type is installed", id="the type is gone"),
        pytest.param(Registry({"LETTER": strict_letter}), "", "payload.subject: Field required", id="the payload"),
        pytest.param(Registry({"LETTER": rude_letter}), "", "RuntimeError", id="a rude model"),
        pytest.param(REGISTRY, "UPDATE schedules SET timezone = 'Mars/Olympus'", "time zone", id="the zone is gone"),
        pytest.param(REGISTRY, "UPDATE schedules SET cron = 'nonsense'", "cron: ", id="the expression"),
        pytest.param(REGISTRY, "UPDATE users SET disabled_at = now()", "account", id="a disabled owner"),
        pytest.param(
            REGISTRY,
            """UPDATE schedules SET template = template || '{"queue": "Not A Queue"}'""",
            "CheckViolation",
            id="a template that the database refuses",
        ),
    ],
)
async def test_a_schedule_that_cannot_fire_pauses_with_its_reason_and_lets_the_others_fire(
    owner: Owner, registry: Registry, change: str, reason: str
) -> None:
    broken = await owner.add(late=timedelta(seconds=9))
    if change:
        await owner.execute(change)
    fired = await owner.fire(registry)
    assert fired is not None
    assert (fired.schedule_id, fired.outcome) == (broken, Outcome.BROKEN)
    assert reason in fired.reason
    paused = await owner.get(broken)
    assert paused.paused_at is not None
    assert paused.paused_reason == fired.reason
    await owner.execute("UPDATE users SET disabled_at = NULL")
    await owner.add(late=timedelta(seconds=1))
    after = await owner.fire()
    assert after is not None
    assert after.outcome is Outcome.FIRED
    assert await owner.fire() is None


async def test_two_scheduler_processes_and_a_worker_run_a_schedules_task_once(owner: Owner, nursery: Children) -> None:
    first, second = nursery.scheduler(), nursery.scheduler()
    nursery.worker()
    registry = Registry({"ECHO": _echo})
    schedule_id = await owner.add(late=timedelta(seconds=1), registry=registry, type="ECHO", payload={"value": 7})

    async def has_completed() -> bool:
        return [task.status for task in await owner.tasks()] == ["COMPLETED"]

    await eventually_async(has_completed)
    assert (await owner.get(schedule_id)).last_fire_at is not None
    eventually(lambda: first.said("schedule.fired") or second.said("schedule.fired"))
    assert first.said("schedule.fired") != second.said("schedule.fired")


async def test_a_scheduler_that_does_not_know_the_type_pauses_the_schedule_and_goes_on(
    owner: Owner, nursery: Children
) -> None:
    schedule_id = await owner.add(late=timedelta(seconds=1))
    scheduler = nursery.scheduler()
    eventually(lambda: scheduler.said("schedule.paused"))
    assert "no such task type is installed" in ((await owner.get(schedule_id)).paused_reason or "")
    assert scheduler.stop() == 0


@task_type("ECHO")
def _echo(ctx: Context, payload: Anything) -> None: ...


async def _fire(session: AsyncSession) -> Firing | None:
    return await firing.fire_next(session, REGISTRY, max_pending=1000)
