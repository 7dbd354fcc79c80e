"""When a cron expression fires: five fields in a time zone, as Debian's cron reads them. Pure.

Around changes of the clock (cronsim follows Debian's cron(8)): what names a time that is skipped fires right after the
gap, what names a time that comes twice fires the first time, and what runs every hour or more often goes by real time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from taskflow_core.errors import FieldProblem, Invalid

FIELDS = 5
MAX_CHARACTERS = 100
HELP = "give five fields, minute hour day-of-month month day-of-week, such as '30 9 * * MON-FRI'"


class Misfire(StrEnum):
    """What becomes of firings that were missed: nothing, or one task for all of them."""

    SKIP = "skip"
    FIRE_ONCE = "fire_once"


def firings(cron: str, timezone: str, *, after: datetime) -> Iterator[datetime]:
    """Yield the moments after `after` at which the expression fires, in UTC; ends when none follows for 50 years.

    Raises:
        Invalid: the expression or the time zone cannot be read; names the field.
    """
    zone = _zone(timezone)
    if len(cron) > MAX_CHARACTERS or not cron.isascii() or len(cron.split()) != FIELDS:
        raise _bad(f"{HELP}, of at most {MAX_CHARACTERS} ASCII characters")
    try:
        moments = CronSim(cron, after.astimezone(zone))
    except CronSimError as error:
        raise _bad(f"{str(error).lower()}; {HELP}") from None
    return _later(moments, after)


def first(cron: str, timezone: str, *, after: datetime) -> datetime:
    """Return the first moment after `after` at which the expression fires, in UTC.

    Raises:
        Invalid: the expression or the time zone cannot be read, or it never fires; names the field.
    """
    moment = next(firings(cron, timezone, after=after), None)
    if moment is None:
        raise _bad(f"never fires within 50 years; {HELP}")
    return moment


def _later(moments: CronSim, after: datetime) -> Iterator[datetime]:
    """Pass on what is later than everything before: a repeated hour would otherwise give a moment of the past."""
    last = after
    for local in moments:
        moment = local.astimezone(UTC)
        if moment > last:
            last = moment
            yield moment


def _zone(name: str) -> ZoneInfo:
    if name not in _zones():
        message = "must be a name of the IANA time zone database, such as Europe/Berlin or UTC"
        raise Invalid("there is no such time zone", [FieldProblem("timezone", message)])
    return ZoneInfo(name)


_zones = cache(available_timezones)


def _bad(message: str) -> Invalid:
    return Invalid("the cron expression is not valid", [FieldProblem("cron", message)])
