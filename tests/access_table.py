"""Who may send what: every route with the least role it takes and the scope that opens it to an API key."""

from typing import NamedTuple

from taskflow_core.models.users import Role


class Need(NamedTuple):
    """What a route asks of who sends it: `role` None is nothing at all, `scope` None shuts every API key out."""

    role: Role | None
    scope: str | None = None


OPEN, USER, ADMIN = Need(None), Need(Role.USER), Need(Role.ADMIN)
TASKS = "/api/v1/tasks"
TASK = f"{TASKS}/{{task_id}}"
SCHEDULES = "/api/v1/schedules"
SCHEDULE = f"{SCHEDULES}/{{schedule_id}}"
WEBHOOKS = "/api/v1/webhooks"
WEBHOOK = f"{WEBHOOKS}/{{webhook_id}}"
QUEUE = "/api/v1/queues/{name}"
AUTH = "/api/v1/auth"
ADMINISTRATION = "/api/v1/admin"


def user(scope: str) -> Need:
    return Need(Role.USER, scope)


def operator(scope: str) -> Need:
    return Need(Role.OPERATOR, scope)


NEEDS: dict[tuple[str, str], Need] = {
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/style.css"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/health/live"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("GET", "/metrics"): OPEN,
    ("POST", f"{AUTH}/register"): OPEN,
    ("POST", f"{AUTH}/login"): OPEN,
    ("POST", f"{AUTH}/refresh"): OPEN,
    ("POST", f"{AUTH}/logout"): OPEN,
    ("POST", f"{AUTH}/logout-all"): USER,
    ("POST", f"{AUTH}/password"): USER,
    ("GET", f"{AUTH}/me"): USER,
    ("GET", f"{AUTH}/sessions"): USER,
    ("DELETE", f"{AUTH}/sessions/{{session_id}}"): USER,
    ("GET", "/api/v1/api-keys"): USER,
    ("POST", "/api/v1/api-keys"): USER,
    ("DELETE", "/api/v1/api-keys/{key_id}"): USER,
    ("GET", f"{ADMINISTRATION}/users"): ADMIN,
    ("GET", f"{ADMINISTRATION}/users/{{user_id}}"): ADMIN,
    ("PATCH", f"{ADMINISTRATION}/users/{{user_id}}"): ADMIN,
    ("GET", f"{ADMINISTRATION}/security-events"): ADMIN,
    ("GET", TASKS): user("tasks:read"),
    ("POST", TASKS): user("tasks:write"),
    ("POST", f"{TASKS}:batch"): user("tasks:write"),
    ("POST", f"{TASKS}:bulkRetry"): user("tasks:write"),
    ("POST", f"{TASKS}:bulkCancel"): user("tasks:write"),
    ("GET", TASK): user("tasks:read"),
    ("PATCH", TASK): user("tasks:write"),
    ("DELETE", TASK): user("tasks:write"),
    ("POST", f"{TASK}:cancel"): user("tasks:write"),
    ("POST", f"{TASK}:clone"): user("tasks:write"),
    ("POST", f"{TASK}:retry"): user("tasks:write"),
    ("GET", f"{TASK}/attempts"): user("tasks:read"),
    ("GET", f"{TASK}/events"): user("tasks:read"),
    ("GET", f"{TASK}/logs"): user("tasks:read"),
    ("GET", f"{TASK}/files"): user("tasks:read"),
    ("GET", f"{TASK}/files/{{name}}"): user("tasks:read"),
    ("GET", "/api/v1/events"): user("events:read"),
    ("GET", "/api/v1/stats"): user("stats:read"),
    ("GET", "/api/v1/task-types"): user("task-types:read"),
    ("GET", SCHEDULES): user("schedules:read"),
    ("POST", SCHEDULES): user("schedules:write"),
    ("GET", SCHEDULE): user("schedules:read"),
    ("PATCH", SCHEDULE): user("schedules:write"),
    ("DELETE", SCHEDULE): user("schedules:write"),
    ("POST", f"{SCHEDULE}:pause"): user("schedules:write"),
    ("POST", f"{SCHEDULE}:resume"): user("schedules:write"),
    ("GET", WEBHOOKS): user("webhooks:read"),
    ("POST", WEBHOOKS): user("webhooks:write"),
    ("GET", WEBHOOK): user("webhooks:read"),
    ("PATCH", WEBHOOK): user("webhooks:write"),
    ("DELETE", WEBHOOK): user("webhooks:write"),
    ("POST", f"{WEBHOOK}:enable"): user("webhooks:write"),
    ("POST", f"{WEBHOOK}:disable"): user("webhooks:write"),
    ("POST", f"{WEBHOOK}:rotateSecret"): user("webhooks:write"),
    ("POST", f"{WEBHOOK}:test"): user("webhooks:write"),
    ("GET", f"{WEBHOOK}/deliveries"): user("webhooks:read"),
    ("POST", f"{WEBHOOK}/deliveries/{{delivery_id}}:redeliver"): user("webhooks:write"),
    ("GET", "/api/v1/workers"): operator("workers:read"),
    ("GET", "/api/v1/workers/{worker_id}"): operator("workers:read"),
    ("GET", "/api/v1/queues"): user("queues:read"),
    ("POST", f"{QUEUE}:pause"): operator("queues:write"),
    ("POST", f"{QUEUE}:resume"): operator("queues:write"),
}
