"""Filters of tasks, from a query or a body to the use-cases."""

from taskflow_api.schemas.tasks import Filter
from taskflow_core.actors import Actor
from taskflow_core.errors import Forbidden
from taskflow_core.listing import TaskFilter

PAGING = frozenset({"limit", "cursor", "page", "count"})


def task_filter(fields: Filter, actor: Actor, *, prefix: str = "") -> TaskFilter:
    """Return the filter that a request asks for; `prefix` is where its body holds it.

    Raises:
        Forbidden: it asks for the tasks of another owner, and the actor is a USER.
    """
    filters = TaskFilter(**{name: value for name, value in fields if name not in PAGING})
    if filters.owner_id is not None and not actor.sees_all and filters.owner_id != actor.user_id:
        raise Forbidden(f"only an OPERATOR or an ADMIN may ask for the tasks of others ({prefix}owner_id)")
    return filters
