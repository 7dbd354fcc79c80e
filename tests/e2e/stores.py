"""PostgreSQL and Valkey inside the namespace of a test, empty and without a volume."""

import os

from e2e.kube import Body, deployment, service

POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:17-trixie")
REDIS_IMAGE = os.environ.get("REDIS_IMAGE", "valkey/valkey:8-trixie")
USER = 999  # of both official images


def postgres(password: str) -> list[Body]:
    """Return a PostgreSQL with the database and the user `taskflow`."""
    container = {
        "image": POSTGRES_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["postgres", "-c", "fsync=off", "-c", "max_connections=300"],
        "readinessProbe": {
            "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", "taskflow", "-d", "taskflow"]},
            "periodSeconds": 2,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}],
    }
    env = [
        ("POSTGRES_USER", "taskflow"),
        ("POSTGRES_DB", "taskflow"),
        ("POSTGRES_PASSWORD", password),
        ("PGDATA", "/var/lib/postgresql/data/pgdata"),
    ]
    made = deployment("postgres", container, user=USER, env=env)
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    return [made, service("postgres", 5432)]


def redis(password: str) -> list[Body]:
    """Return a Valkey that asks for a password."""
    container = {
        "image": REDIS_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["valkey-server", "--bind", "0.0.0.0", "--save", "", "--requirepass", password],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 2},
    }
    return [deployment("redis", container, user=USER), service("redis", 6379)]
