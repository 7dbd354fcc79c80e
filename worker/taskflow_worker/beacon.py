"""The worker's side of scaling in: it says what it holds, and takes nothing while its drain flag stands."""

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from taskflow_core.beacons import (
    BEACON_KEY,
    BEACON_TTL_S,
    BELL_KEY,
    DRAIN_KEY,
    DRAIN_TTL_S,
    MAX_RUNS,
    RUNS_KEY,
    RUNS_TTL_S,
    Beacon,
    run_sample,
)
from taskflow_core.logs import get_logger
from taskflow_worker.keeper import Identity

BEAT_S = 1.0
SHORTEST_S = 0.1  # between two beacons, however often something changes
RUNS_PER_BEAT = 50  # run times of a queue that one beat keeps, the newest

log = get_logger(__name__)


class DrainFlag:
    """The flag of one worker, looked at whenever its bell rang or could have rung unheard."""

    def __init__(self, redis: Redis, hostname: str) -> None:
        self.bell = BELL_KEY + hostname
        self.token: str | None = None
        self.unsure = True  # a bell from before this process, or during an outage, was not heard
        self._redis = redis
        self._key = DRAIN_KEY + hostname
        self._seen = 0.0

    @property
    def raised(self) -> bool:
        """Whether no task may be taken. A flag that cannot be looked at ends as it would in Redis."""
        return self.token is not None and time.monotonic() - self._seen < DRAIN_TTL_S

    async def look(self) -> bool:
        """Look whether the flag stands.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        self.unsure = True
        token = await self._redis.get(self._key)
        found = token.decode("ascii", "replace") if isinstance(token, bytes) else None
        if found != self.token:
            log.info("worker.drains" if found else "worker.goes_on", token=found or self.token)
        self.token, self._seen, self.unsure = found, time.monotonic(), False
        return self.raised


class BeaconLight:
    """Keeps a worker's beacon lit and its run times known. An outage of Redis costs only the beacon."""

    def __init__(self, redis: Redis, identity: Identity, flag: DrainFlag) -> None:
        self._redis = redis
        self._identity = identity
        self._key = BEACON_KEY + identity.hostname
        self._flag = flag
        self._idle_since: float | None = time.time()
        self._runs: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=RUNS_PER_BEAT))
        self._changed = asyncio.Event()
        self.lit = True

    def ran(self, queue: str, seconds: float) -> None:
        """Keep how long a handler ran, until the next beat."""
        self._runs[queue].append(run_sample(at_s=time.time(), seconds=seconds))

    def changed(self) -> None:
        """Light the beacon anew at once: the worker became busy, idle or drained."""
        self._changed.set()

    async def shine(
        self, *, held: Callable[[], int], paused: Callable[[], Collection[str]], stopping: Callable[[], bool]
    ) -> None:
        """Keep the beacon lit until `put_out`; it tells how many tasks are `held`, and whether the worker stops."""
        away = False
        while self.lit:  # a cancellation alone may end in the Redis client
            self._changed.clear()
            try:
                await self._light(held(), sorted(paused()), stopping=stopping())
                away = False
            except (RedisError, OSError) as error:
                if not away:
                    log.warning("beacon.failed", reason=str(error) or type(error).__name__)
                away = True
            await asyncio.sleep(SHORTEST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S - SHORTEST_S):
                    await self._changed.wait()

    async def put_out(self) -> None:
        """Take the beacon away and end `shine`; a failure leaves it to its expiry."""
        self.lit = False
        self._changed.set()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.delete(self._key)

    async def _light(self, held: int, paused: Sequence[str], *, stopping: bool) -> None:
        self._idle_since = (self._idle_since or time.time()) if held == 0 else None
        token = self._flag.token if self._flag.raised else None
        state = "stopping" if stopping else "draining" if token else "running"
        who = self._identity
        beacon = Beacon(who.id, who.queues, paused, who.slots, held, self._idle_since, state, token)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(self._key, beacon.to_json(), ex=BEACON_TTL_S)
        for queue in list(self._runs):
            pipe.rpush(RUNS_KEY + queue, *self._runs.pop(queue))
            pipe.ltrim(RUNS_KEY + queue, -MAX_RUNS, -1)
            pipe.expire(RUNS_KEY + queue, RUNS_TTL_S)
        await pipe.execute()
