"""The doorbell: arq tells a worker that there is work; PostgreSQL says which.

A ring carries an execution id only so that a second ring for the same work is dropped while the first waits.
A lost ring costs at most a second, as workers also look by themselves; a doubled one costs one empty claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import orjson
import structlog
from arq import ArqRedis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from models.database import in_unit_of_work
from models.transaction import after_commit
from settings import Settings

RING: Final = "ring"
RING_TIMEOUT_SECONDS: Final = 1.0
_log = structlog.get_logger("switchyard.queue")


class Doorbell:
    """Rings workers of a kind."""

    def __init__(self, redis: ArqRedis, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace

    async def ring(self, kind: str, execution_id: UUID) -> None:
        """Wake a worker of a kind, best effort."""
        try:
            async with asyncio.timeout(RING_TIMEOUT_SECONDS):
                await self._redis.enqueue_job(
                    RING,
                    str(execution_id),
                    _job_id=f"{self._namespace}:{execution_id}",
                    _queue_name=queue_name(self._namespace, kind),
                )
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("ring_lost", kind=kind, execution_id=str(execution_id), error=repr(error))


def queue_name(namespace: str, kind: str) -> str:
    """The Redis key of a kind's queue."""
    return f"{namespace}:queue:{kind.lower()}"


def open_arq(settings: Settings) -> ArqRedis:
    """An arq client with deadlines on everything: arq's own settings have none for reads."""
    pool = ConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=3,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=5,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
    )
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
        default_queue_name=queue_name(settings.redis_namespace, "none"),
    )


_doorbell: Doorbell | None = None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Doorbell]:
    """Hold the doorbell for the life of the process."""
    global _doorbell
    redis = open_arq(settings)
    _doorbell = Doorbell(redis, settings.redis_namespace)
    try:
        yield _doorbell
    finally:
        _doorbell = None
        await close(redis)


async def close(redis: ArqRedis) -> None:
    """Give back the connections of a client made by `open_arq`."""
    await redis.aclose(close_connection_pool=True)


async def ring(kind: str, execution_id: UUID) -> None:
    """Wake a worker; inside a unit of work after its commit. Raises LookupError when no doorbell is held."""
    doorbell = _doorbell
    if doorbell is None:
        raise LookupError("queue.connected() is not open in this process")
    if in_unit_of_work.get():
        after_commit(lambda: doorbell.ring(kind, execution_id))
    else:
        await doorbell.ring(kind, execution_id)
