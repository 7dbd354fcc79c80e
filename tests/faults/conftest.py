"""Fixtures of the fault scenarios: servers of a module's own, a fresh database a test, and the table of figures."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from children import Client, children
from faults.figures import Figures, table
from faults.scene import Scene
from faults.servers import Servers, own_servers
from taskflow_cli.embedded import postgres
from taskflow_core import schema
from taskflow_core.database import Sessions
from taskflow_core.queue import DeliveryQueue, connect_redis
from taskflow_core.settings import Settings

PLUGIN = Path(__file__).parent / "plugin"
TEMPLATE = "taskflow_template"


@pytest.fixture(scope="module")
def servers(server_dir: Path, request: pytest.FixtureRequest) -> Iterator[Servers]:
    with own_servers(server_dir, server_dir / request.path.stem) as running:
        yield running


@pytest.fixture(scope="module")
def postgres_url(servers: Servers) -> str:
    return servers.postgres.url


@pytest.fixture(scope="module")
def redis_url(servers: Servers) -> str:
    return servers.valkey.url


@pytest.fixture(scope="module")
def template_database(postgres_url: str, redis_url: str) -> str:
    postgres.ensure_database(postgres_url, TEMPLATE)
    url = postgres_url.rpartition("/")[0] + "/" + TEMPLATE
    schema.migrate(Settings(database_url=SecretStr(url), redis_url=SecretStr(redis_url)))
    return TEMPLATE


@pytest.fixture
async def scene(
    settings: Settings,
    env: dict[str, str],
    engine: AsyncEngine,
    sessions: Sessions,
    servers: Servers,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> AsyncIterator[Scene]:
    """Set the stage; whatever a test did to the servers, they run again afterwards."""
    redis = connect_redis(settings)
    try:
        with children({**env, "PYTHONPATH": str(PLUGIN)}, tmp_path) as nursery:
            yield Scene(settings, servers, nursery, Client(sessions, DeliveryQueue(redis)), engine, record_property)
    finally:
        servers.start()
        await redis.aclose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what each scenario counted, those of failed ones included."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [entry for report in reports if report.when == "call" for entry in report.user_properties]
    rows = [Figures(**value) for name, value in properties if name == "figures"]
    if rows:
        terminalreporter.section("figures of the fault scenarios")
        for row in table(rows):
            terminalreporter.write_line(row)
