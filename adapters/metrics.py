"""What a process counts about itself, in the text format of Prometheus.

Each process has one `Metrics` with a registry of its own, opened for its life; whoever counts asks for `current()`.
Invariants: counting never waits and never fails; labels take values from closed sets only, and where a set is open no
more than `MAX_LABELS` of it, so that no caller can make series without end. What is true of the whole installation is
read from the database by `resolvers/system.py` and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric

VERSION: Final = "0.1.0"
"""The version of Switchyard, as in `pyproject.toml`."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABELS: Final = 200
OTHER: Final = "other"

_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WORK_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400, 86_400)

# Twice the series, and nobody reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it bare


class LabelSet:
    """The values of a label, the first so many of them; the rest is `other`."""

    def __init__(self, most: int = MAX_LABELS) -> None:
        self._known: set[str] = set()
        self._most = most

    def admit(self, value: str) -> str:
        """The value to count under."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class Metrics:
    """The instruments of one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        build = Gauge("switchyard_build_info", "The version of this process.", ["version"], registry=registry)
        build.labels(VERSION).set(1)

        # -- requests
        self._requests = Counter(
            "switchyard_http_requests", "HTTP requests answered.", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "switchyard_http_request_duration_seconds",
            "Time from a request to the end of its answer; streams are left out.",
            ["route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.site_requests = Counter("switchyard_site_requests", "Requests for sites.", registry=registry)
        self._operations = Counter(
            "switchyard_graphql_operations",
            "GraphQL operations by root field, type and code of the first error (OK without one).",
            ["operation", "type", "code"],
            registry=registry,
        )
        self._operation_seconds = Histogram(
            "switchyard_graphql_operation_duration_seconds",
            "Time that queries and mutations took; refused ones count.",
            ["operation", "type"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.subscriptions = Gauge(
            "switchyard_subscriptions_open", "Subscriptions that are open, by root field.", ["field"], registry=registry
        )
        self.deliveries = Counter(
            "switchyard_subscription_events", "Events sent to subscribers, by root field.", ["field"], registry=registry
        )
        self.sockets = Gauge("switchyard_websockets_open", "WebSockets that are open.", registry=registry)
        self.refusals = Counter(
            "switchyard_rate_limit_refusals", "Calls refused by a rate limit.", ["policy"], registry=registry
        )
        self.cache_lookups = Counter(
            "switchyard_cache_lookups", "Looks into caches of this process.", ["cache", "result"], registry=registry
        )

        # -- the process and what it leans on
        self.loop_lag = Gauge(
            "switchyard_event_loop_lag_seconds",
            "Longest delay of the event loop in the last seconds.",
            registry=registry,
        )
        self.pool = Gauge(
            "switchyard_database_pool_connections",
            "Connections of a pool: open, in use, and the limit.",
            ["pool", "state"],
            registry=registry,
        )
        self.pool_waiting = Gauge(
            "switchyard_database_pool_waiting", "Callers that wait for a connection.", ["pool"], registry=registry
        )
        self.reconnects = Counter(
            "switchyard_event_bus_losses", "Times that the connection for events (Redis) was lost.", registry=registry
        )
        self.disk = Gauge(
            "switchyard_data_disk_bytes", "The disk of DATA_DIR: total and free.", ["state"], registry=registry
        )
        self.samples = Counter(
            "switchyard_system_samples", "Samples taken for subscriptions of systemMetrics.", registry=registry
        )

        # -- workers
        self.slots = Gauge(
            "switchyard_worker_slots", "Places for executions of a worker: all, and in use.", ["kind", "state"],
            registry=registry,
        )  # fmt: skip
        self.started = Counter(
            "switchyard_executions_started",
            "Executions that a worker began, each attempt.",
            ["kind"],
            registry=registry,
        )
        self.finished = Counter(
            "switchyard_executions_finished",
            "Executions that ended here: SUCCEEDED, CANCELLED, the code of the failure, HANDED_BACK or LEASE_LOST.",
            ["kind", "result"],
            registry=registry,
        )
        self.wait_seconds = Histogram(
            "switchyard_execution_wait_seconds",
            "Time from the request to the first attempt.",
            ["kind"],
            buckets=_WORK_SECONDS,
            registry=registry,
        )
        self.run_seconds = Histogram(
            "switchyard_execution_duration_seconds",
            "Time that an attempt took on its worker.",
            ["kind"],
            buckets=_WORK_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "switchyard_execution_stage_duration_seconds",
            "Time that a stage of an attempt took.",
            ["kind", "stage"],
            buckets=_WORK_SECONDS,
            registry=registry,
        )
        self.log_lines = Counter("switchyard_log_lines", "Log lines of executions stored.", registry=registry)
        self.log_bytes = Counter("switchyard_log_bytes", "Bytes of log lines stored.", registry=registry)
        self.outbox = Counter(
            "switchyard_outbox_messages",
            "Messages of the outbox by topic: TOLD, PUT_OFF or GIVEN_UP.",
            ["topic", "result"],
            registry=registry,
        )
        self.leases_lost = Counter(
            "switchyard_leases_lost", "Leases that this worker lost.", ["kind"], registry=registry
        )
        self.sweeps = Counter("switchyard_sweeps", "Looks for executions whose worker is gone.", registry=registry)
        self.swept = Counter(
            "switchyard_executions_recovered", "Executions taken back from a lost worker.", ["kind"], registry=registry
        )

        self._operation_labels = LabelSet()
        self._stage_labels = LabelSet()
        self._lookup_children: dict[tuple[str, bool], Counter] = {}
        self._operation_children: dict[tuple[str, str, str], tuple[Counter, Histogram | None]] = {}
        self._request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_request(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """An HTTP request that was answered; `route` and `method` come from closed sets, no seconds for a stream."""
        children = self._request_children.get((route, method, status))
        if children is None:
            children = self._requests.labels(route, method, str(status)), self._request_seconds.labels(route)
            self._request_children[route, method, status] = children
        counter, histogram = children
        counter.inc()
        if seconds is not None:
            histogram.observe(seconds)

    def count_operation(self, operation: str, kind: str, code: str, seconds: float | None) -> None:
        """A GraphQL operation under the name of its root field; no seconds for a subscription."""
        children = self._operation_children.get((operation, kind, code))
        if children is None:
            label = self._operation_labels.admit(operation)
            counter = self._operations.labels(label, kind, code)
            children = counter, None if seconds is None else self._operation_seconds.labels(label, kind)
            if len(self._operation_children) < 16 * MAX_LABELS:
                self._operation_children[operation, kind, code] = children
        counter, histogram = children
        counter.inc()
        if seconds is not None and histogram is not None:
            histogram.observe(seconds)

    def observe_stage(self, kind: str, stage: str, seconds: float) -> None:
        """A stage that is over."""
        self._stage_seconds.labels(kind, self._stage_labels.admit(stage)).observe(seconds)

    def watch_pool(self, name: str, read: Callable[[], tuple[int, int, int, int]]) -> None:
        """Show a pool from now on; `read` gives its open connections, those in use, the limit and who waits."""
        for place, state in enumerate(("open", "in_use", "limit")):
            self.pool.labels(name, state).set_function(lambda place=place: read()[place])  # type: ignore[misc] # a default
        self.pool_waiting.labels(name).set_function(lambda: read()[3])

    def watch_slots(self, read: Callable[[], dict[str, tuple[int, int]]]) -> None:
        """Show from now on, of each kind that is offered now, how many places there are and how many are taken."""
        for kind in read():
            for place, state in enumerate(("all", "busy")):
                self.slots.labels(kind, state).set_function(lambda kind=kind, place=place: read()[kind][place])  # type: ignore[misc] # defaults

    def count_lookup(self, cache: str, is_hit: bool) -> None:
        """A look into a cache."""
        counter = self._lookup_children.get((cache, is_hit))
        if counter is None:
            counter = self.cache_lookups.labels(cache, "hit" if is_hit else "miss")
            self._lookup_children[cache, is_hit] = counter
        counter.inc()

    def text(self, more: Iterable[Metric] = ()) -> bytes:
        """All of it as Prometheus reads it, and what else there is to say."""
        return generate_latest(_Joined(self.registry, tuple(more)))


class _Joined(CollectorRegistry):
    """A registry with families behind it that were made for one answer."""

    def __init__(self, registry: CollectorRegistry, more: Sequence[Metric]) -> None:
        super().__init__()
        self._registry = registry
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """The families of both."""
        yield from self._registry.collect()
        yield from self._more


_current = Metrics()


def current() -> Metrics:
    """The instruments of this process."""
    return _current


@contextmanager
def opened() -> Iterator[Metrics]:
    """Fresh instruments for the life of a process."""
    global _current
    before, _current = _current, Metrics()
    try:
        yield _current
    finally:
        _current = before


def total(instrument: Counter | Gauge, **labels: str) -> float:
    """The sum over the series of an instrument that have these labels."""
    return sum(
        sample.value
        for family in instrument.collect()
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    )
