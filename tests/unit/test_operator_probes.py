"""The operator's liveness proves progress: one loop that stands still is enough to fail it."""

import asyncio
import urllib.error
import urllib.request
from typing import cast

import pytest

from taskflow_cli.embedded.ports import free_port
from taskflow_core.probes import Pulse, serve_probes
from taskflow_operator import loops
from taskflow_operator.loops import Loops
from taskflow_operator.reconcile import Reconciler
from taskflow_operator.store import Place
from waiting import eventually_async

WELL, STUCK = Place("team", "well"), Place("team", "stuck")


class Looks:
    """Stands in for a reconciler; one that is stuck swallows even its cancellation."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.seen = 0
        self.stuck = False

    async def reconcile(self) -> float:
        """Look, for ever when stuck."""
        self.seen += 1
        while self.stuck:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return 0.1

    async def close(self) -> None:
        """Forget nothing."""


def live(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


async def test_a_look_that_never_ends_fails_the_liveness_while_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "RECONCILE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(loops, "SLACK_S", 0.2)
    looks = {place: Looks(place) for place in (WELL, STUCK)}
    pulse, port = Pulse(reconcile=2.0), free_port()
    server = serve_probes(port, pulse, host="127.0.0.1")
    assert server is not None
    running = Loops(lambda place: cast("Reconciler", looks[place]), may_write=lambda: True, pulse=pulse)
    watching = asyncio.create_task(running.watch_over())
    for place in looks:
        running.poke(place)

    async def answers(status: int) -> bool:
        return (await asyncio.to_thread(live, port))[0] == status

    try:
        await eventually_async(lambda: answers(200))
        looks[STUCK].stuck = True
        await eventually_async(lambda: answers(503))
        seen = looks[WELL].seen
        assert "reconcile has not moved for" in live(port)[1]
        await eventually_async(lambda: _moved(looks[WELL], seen))
        looks[STUCK].stuck = False
        await eventually_async(lambda: answers(200))
    finally:
        looks[STUCK].stuck = False
        watching.cancel()
        await running.stop()
        server.shutdown()
        server.server_close()


async def _moved(looks: Looks, since: int) -> bool:
    return looks.seen > since
