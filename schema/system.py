"""How the installation is, as administrators see it: one sample, a stream of samples, and counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from errors import ValidationFailed
from models.executions import ExecutionStatus
from models.permissions import Permission
from models.processes import ProcessRole
from resolvers import system
from resolvers.system import Sample
from schema.context import Context
from schema.enums import publish
from schema.permissions import requires
from schema.scalars import BigInt

Info = strawberry.Info[Context, None]

MAX_INTERVAL_SECONDS: Final = 60

publish(ProcessRole, "What a process is for.", API="It answers requests.", WORKER="It runs executions.")


@strawberry.type(description="The machine of the process that answered. Other machines show through their processes.")
class MachineMetrics:
    """A machine."""

    host: str = strawberry.field(description="Its name.")
    cpu_count: int = strawberry.field(description="How many processors it has.")
    cpu_percent: float = strawberry.field(description="How busy all of them were, of 100.")
    load_average: float = strawberry.field(description="Processes that ran or wanted to, on average of a minute.")
    memory_total_bytes: BigInt = strawberry.field(description="Memory.")
    memory_used_bytes: BigInt = strawberry.field(description="Memory that is not available to new programs.")
    disk_total_bytes: BigInt = strawberry.field(description="The disk that DATA_DIR is on.")
    disk_free_bytes: BigInt = strawberry.field(description="What is free of it.")
    network_received_bytes_per_second: float = strawberry.field(description="What came in, over all interfaces.")
    network_sent_bytes_per_second: float = strawberry.field(description="What went out, over all interfaces.")


@strawberry.type(description="The executions of a kind that wait and run.")
class QueueMetrics:
    """A queue."""

    kind: str = strawberry.field(description="The kind, such as `CRAWL`. Expect new values.")
    queued: int = strawberry.field(description="How many wait.")
    running: int = strawberry.field(description="How many run.")
    oldest_wait_seconds: float | None = strawberry.field(
        description="How long the oldest has waited; null when none waits."
    )
    slots: int = strawberry.field(description="How many the workers that are alive could run at once.")


@strawberry.type(description="What a worker offers of a kind.")
class WorkerSlots:
    """Slots."""

    kind: str = strawberry.field(description="The kind.")
    slots: int = strawberry.field(description="How many it runs at once.")
    busy: int = strawberry.field(description="How many it runs now.")


@strawberry.type(description="A process that is alive, as its last heartbeat told.")
class ProcessMetrics:
    """A process."""

    name: str = strawberry.field(description="Its name, which its log has as well.")
    role: ProcessRole = strawberry.field(description="What it is for.")
    host: str = strawberry.field(description="The machine it runs on.")
    pid: int = strawberry.field(description="Its number there.")
    version: str = strawberry.field(description="The version of Switchyard.")
    started_at: datetime = strawberry.field(description="When it started.")
    heartbeat_age_seconds: float = strawberry.field(description="How long ago it was last heard of.")
    cpu_percent: float = strawberry.field(description="How busy it was, of 100 for each processor.")
    resident_bytes: BigInt = strawberry.field(description="Its memory, without its children's.")
    event_loop_lag_milliseconds: float = strawberry.field(
        description="The longest delay of its event loop in the last ten to twenty seconds."
    )
    pool_connections: int = strawberry.field(description="Connections to the database that its pool has open.")
    pool_connections_in_use: int = strawberry.field(description="Those of them that are in use.")
    pool_limit: int = strawberry.field(description="How many its pool may open.")
    pool_waiting: int = strawberry.field(description="Callers that wait for a connection.")
    open_sockets: int = strawberry.field(description="WebSockets that are open.")
    open_subscriptions: int = strawberry.field(description="Subscriptions that are open, over any transport.")
    cache_hits: BigInt = strawberry.field(description="Looks into its caches that found something, since its start.")
    cache_misses: BigInt = strawberry.field(description="Looks that found nothing.")
    event_losses: int = strawberry.field(description="How often it lost Redis since its start.")
    slots: list[WorkerSlots] = strawberry.field(description="What a worker offers, by kind; empty for an API.")


@strawberry.type(description="Redis.")
class RedisMetrics:
    """Redis."""

    reachable: bool = strawberry.field(description="Whether it answered within a second.")
    memory_bytes: BigInt | None = strawberry.field(description="What it holds; null when it did not answer.")
    clients: int | None = strawberry.field(description="Connections to it; null when it did not answer.")


@strawberry.type(description="The database.")
class DatabaseMetrics:
    """The database."""

    size_bytes: BigInt = strawberry.field(description="Its size on disk; at most a minute old.")
    connections: int = strawberry.field(description="Connections to it, of all programs.")
    max_connections: int = strawberry.field(description="How many PostgreSQL allows.")


@strawberry.type(description="Messages to the world outside, such as mail and webhooks.")
class OutboxMetrics:
    """The outbox."""

    waiting: int = strawberry.field(description="Messages that are not told yet.")
    oldest_wait_seconds: float | None = strawberry.field(
        description="How long the oldest is due; null when none waits."
    )
    given_up: int = strawberry.field(description="Messages that were given up in the last thirty days.")


@strawberry.type(description="What is stored, as the rows that name it say; at most a minute old.")
class StorageUse:
    """Bytes."""

    total_bytes: BigInt = strawberry.field(description="All of these together.")
    media_bytes: BigInt = strawberry.field(description="Uploads.")
    artifact_bytes: BigInt = strawberry.field(description="Files of deployments, each content once.")
    output_bytes: BigInt = strawberry.field(description="Files of runs and exports.")
    log_bytes: BigInt = strawberry.field(description="Logs as they were written; in storage they are compressed.")


@strawberry.type(description="How the installation is at a moment.")
class SystemMetrics:
    """A sample."""

    sampled_at: datetime = strawberry.field(description="The moment.")
    machine: MachineMetrics = strawberry.field(description="The machine of the process that answered.")
    queues: list[QueueMetrics] = strawberry.field(
        description="The queue of each kind that waits, runs or is offered by a worker."
    )
    workers: list[ProcessMetrics] = strawberry.field(
        description="Workers that are alive: those heard of within three heartbeats, which is 15 seconds unless set."
    )
    apis: list[ProcessMetrics] = strawberry.field(description="API processes that are alive.")
    open_sockets: int = strawberry.field(description="WebSockets of all processes, as of their last heartbeats.")
    open_subscriptions: int = strawberry.field(description="Subscriptions of all processes, likewise.")
    cache_hit_percent: float | None = strawberry.field(
        description="Looks into caches of all processes that found something, of 100; null before the first."
    )
    redis: RedisMetrics = strawberry.field(description="Redis.")
    database: DatabaseMetrics = strawberry.field(description="The database.")
    outbox: OutboxMetrics = strawberry.field(description="What has to be told to the world outside.")
    storage: StorageUse = strawberry.field(description="What is stored.")


@strawberry.type(description="How many there are of something.")
class SystemCount:
    """A count."""

    count: BigInt = strawberry.field(description="How many.")
    is_estimate: bool = strawberry.field(
        description="Whether that is PostgreSQL's estimate, which it makes for tables of more than 100,000 rows."
    )


@strawberry.type(description="Executions of a kind in a status that is not final.")
class ActiveExecutions:
    """A count."""

    kind: str = strawberry.field(description="The kind, such as `CRAWL`. Expect new values.")
    status: ExecutionStatus = strawberry.field(description="QUEUED or RUNNING.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="How much there is of everything; at most ten seconds old.")
class SystemStats:
    """Counts."""

    users: SystemCount = strawberry.field(description="Accounts.")
    users_active_last_day: int = strawberry.field(description="Users who renewed a session in the last 24 hours.")
    users_active_last30_days: int = strawberry.field(description="Users who renewed a session in the last 30 days.")
    jobs: SystemCount = strawberry.field(description="Jobs.")
    tools: SystemCount = strawberry.field(description="Tools.")
    projects: SystemCount = strawberry.field(description="Projects.")
    deployments: SystemCount = strawberry.field(description="Deployments.")
    runs: SystemCount = strawberry.field(description="Runs of jobs.")
    items: SystemCount = strawberry.field(description="Items that runs found.")
    scans: SystemCount = strawberry.field(description="Risk scans.")
    documents: SystemCount = strawberry.field(description="Documents that were or will be read.")
    media: SystemCount = strawberry.field(description="Uploads.")
    products: SystemCount = strawberry.field(description="Products.")
    properties: SystemCount = strawberry.field(description="Properties.")
    active_executions: list[ActiveExecutions] = strawberry.field(
        description="Executions that wait or run, by kind and status."
    )
    storage: StorageUse = strawberry.field(description="What is stored.")


@strawberry.type
class SystemQuery:
    """For administrators."""

    @strawberry.field(
        description="How the installation is now; for administrators. SERVICE_UNAVAILABLE without the database.",
        extensions=[requires(Permission.SYSTEM_READ)],
    )
    async def system_metrics(self) -> SystemMetrics:
        """One sample."""
        return _metrics_of(await system.board().current())

    @strawberry.field(
        description="How much there is of everything; for administrators.",
        extensions=[requires(Permission.SYSTEM_READ)],
    )
    async def system_stats(self) -> SystemStats:
        """Counts."""
        found = await system.board().stats()
        return SystemStats(
            **{
                name: SystemCount(count=BigInt(count[0]), is_estimate=count[1])
                for name, count in found["counts"].items()
            },
            users_active_last_day=found["day"],
            users_active_last30_days=found["month"],
            active_executions=[
                ActiveExecutions(kind=each["kind"], status=ExecutionStatus(each["status"]), count=each["count"])
                for each in found["executions"]
            ],
            storage=_storage_of(found["storage"]),
        )


@strawberry.type
class SystemSubscription:
    """For administrators."""

    @strawberry.subscription(
        description="How the installation is: now, then every so many seconds; for administrators. While the database "
        "is away nothing comes. Does not complete; FORBIDDEN ends it when you are an administrator no longer.",
        extensions=[requires(Permission.SYSTEM_READ)],
    )
    async def system_metrics(
        self,
        info: Info,
        interval_seconds: Annotated[int, strawberry.argument(description="How often, 1 to 60 seconds.")] = 3,
    ) -> AsyncGenerator[SystemMetrics, None]:
        """Samples."""
        if not 1 <= interval_seconds <= MAX_INTERVAL_SECONDS:
            raise ValidationFailed(
                f"`intervalSeconds` is 1 to {MAX_INTERVAL_SECONDS} seconds.", path=["intervalSeconds"]
            )
        context = info.context
        source = system.board().follow(lambda: context.actor, interval_seconds, make=_metrics_of)
        async with aclosing(source) as samples:
            async for sample in samples:
                yield sample  # type: ignore[misc] # the executor unwraps a SharedEvent


def _metrics_of(sample: Sample) -> SystemMetrics:
    found = sample.installation
    processes = [_process_of(row) for row in found["processes"]]
    hits = sum(process.cache_hits for process in processes)
    looks = hits + sum(process.cache_misses for process in processes)
    machine = sample.machine
    return SystemMetrics(
        sampled_at=sample.at,
        machine=MachineMetrics(
            host=machine.host,
            cpu_count=machine.cpu_count,
            cpu_percent=machine.cpu_percent,
            load_average=machine.load_average,
            memory_total_bytes=BigInt(machine.memory_total),
            memory_used_bytes=BigInt(machine.memory_used),
            disk_total_bytes=BigInt(machine.disk_total),
            disk_free_bytes=BigInt(machine.disk_free),
            network_received_bytes_per_second=machine.received_per_second,
            network_sent_bytes_per_second=machine.sent_per_second,
        ),
        queues=_queues_of(found),
        workers=[process for process in processes if process.role is ProcessRole.WORKER],
        apis=[process for process in processes if process.role is ProcessRole.API],
        open_sockets=sum(process.open_sockets for process in processes),
        open_subscriptions=sum(process.open_subscriptions for process in processes),
        cache_hit_percent=round(100 * hits / looks, 1) if looks else None,
        redis=RedisMetrics(
            reachable=sample.redis.is_reachable,
            memory_bytes=None if sample.redis.memory_bytes is None else BigInt(sample.redis.memory_bytes),
            clients=sample.redis.clients,
        ),
        database=DatabaseMetrics(
            size_bytes=BigInt(sample.storage["database"]),
            connections=found["connections"],
            max_connections=found["max_connections"],
        ),
        outbox=OutboxMetrics(**found["outbox"]),
        storage=_storage_of(sample.storage),
    )


def _queues_of(found: dict[str, Any]) -> list[QueueMetrics]:
    places = system.places_of(found)
    waiting = {queue["kind"]: queue for queue in found["queues"]}
    return [
        QueueMetrics(
            kind=kind,
            queued=waiting.get(kind, {}).get("queued", 0),
            running=waiting.get(kind, {}).get("running", 0),
            oldest_wait_seconds=waiting.get(kind, {}).get("oldest_wait_seconds"),
            slots=places.get(kind, (0, 0))[0],
        )
        for kind in sorted({*places, *waiting})
    ]


def _process_of(row: dict[str, Any]) -> ProcessMetrics:
    sample = row["sample"]
    return ProcessMetrics(
        name=row["name"],
        role=ProcessRole(row["role"]),
        host=row["host"],
        pid=row["pid"],
        version=row["version"],
        started_at=datetime.fromisoformat(row["started_at"]),
        heartbeat_age_seconds=max(0.0, row["age_seconds"]),
        cpu_percent=sample["cpu_percent"],
        resident_bytes=BigInt(sample["resident_bytes"]),
        event_loop_lag_milliseconds=sample["loop_lag_milliseconds"],
        pool_connections=sample["pool_open"],
        pool_connections_in_use=sample["pool_in_use"],
        pool_limit=sample["pool_limit"],
        pool_waiting=sample["pool_waiting"],
        open_sockets=sample["sockets"],
        open_subscriptions=sample["subscriptions"],
        cache_hits=BigInt(sample["cache_hits"]),
        cache_misses=BigInt(sample["cache_misses"]),
        event_losses=sample["event_losses"],
        slots=[WorkerSlots(**offer) for offer in row["kinds"]],
    )


def _storage_of(used: dict[str, int]) -> StorageUse:
    parts = ("media", "artifacts", "outputs", "logs")
    return StorageUse(
        total_bytes=BigInt(sum(used[part] for part in parts)),
        media_bytes=BigInt(used["media"]),
        artifact_bytes=BigInt(used["artifacts"]),
        output_bytes=BigInt(used["outputs"]),
        log_bytes=BigInt(used["logs"]),
    )
