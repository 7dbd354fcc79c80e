"""Equal questions share answers, and none of them is older than its question."""

import asyncio

import pytest

from taskflow_core.sharing import Shared
from waiting import eventually_async


async def test_equal_questions_share_a_run_that_began_after_them() -> None:
    shared: Shared[int] = Shared()
    begun = 0
    gate = asyncio.Event()

    async def run() -> int:
        nonlocal begun
        begun += 1
        mine = begun
        await gate.wait()
        return mine

    async def has_begun(runs: int) -> bool:
        return begun >= runs

    first = [asyncio.create_task(shared.ask("k", run)) for _ in range(3)]
    await eventually_async(lambda: has_begun(1))
    later = [asyncio.create_task(shared.ask("k", run)) for _ in range(3)]
    other = asyncio.create_task(shared.ask("another", run))
    await eventually_async(lambda: has_begun(2))
    gate.set()
    assert await asyncio.gather(*first) == [1, 1, 1]
    assert await other == 2
    assert await asyncio.gather(*later) == [3, 3, 3]


async def test_who_leaves_stops_nobody_and_an_error_reaches_all_and_ends_there() -> None:
    shared: Shared[int] = Shared()
    gate = asyncio.Event()

    async def fails() -> int:
        await gate.wait()
        raise ValueError("no")

    async def works() -> int:
        return 1

    askers = [asyncio.create_task(shared.ask("k", fails)) for _ in range(3)]
    await asyncio.sleep(0)
    askers[0].cancel()
    gate.set()
    for asker in askers[1:]:
        with pytest.raises(ValueError, match="no"):
            await asker
    assert await shared.ask("k", works) == 1
