"""The flag that an open stream waits for."""

import asyncio

import pytest

from taskflow_api.listeners import Wake

LONG_S = 30.0
SHORT_S = 0.01


async def test_what_is_raised_before_the_wait_is_not_lost_and_counts_once() -> None:
    wake = Wake()
    wake.set()
    wake.set()
    assert await wake.wait(LONG_S)
    assert not await wake.wait(SHORT_S)


async def test_whoever_waits_goes_on_as_soon_as_it_is_raised() -> None:
    wake = Wake()
    waiting = asyncio.create_task(wake.wait(LONG_S))
    await asyncio.sleep(0)
    wake.set()
    async with asyncio.timeout(LONG_S / 2):
        assert await waiting
    assert not await wake.wait(SHORT_S)


async def test_what_is_raised_after_the_time_was_over_is_there_for_the_next_wait() -> None:
    wake = Wake()
    assert not await wake.wait(SHORT_S)
    wake.set()
    assert await wake.wait(LONG_S)


async def test_a_wait_that_is_given_up_leaves_the_flag_usable() -> None:
    wake = Wake()
    waiting = asyncio.create_task(wake.wait(LONG_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    wake.set()
    assert await wake.wait(SHORT_S)
