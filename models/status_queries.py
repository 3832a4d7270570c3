"""What probes found, as it is written by workers and read by the status page: plain rows.

Durations are counted in 64 intervals that grow by a quarter of an octave from 0.25 ms on, so a percentile is right to
about a tenth and an hour of a service is one row. Days are those of UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from asyncpg import Connection

from models import database
from models.database import Row

BUCKETS: Final = 64
KEPT_DAYS: Final = 91
KEPT_CHANGES: Final = 1_000
SHOWN_CHANGES: Final = 10
_FIRST_MILLISECONDS: Final = 0.25
_PER_OCTAVE: Final = 4


def bucket_of(milliseconds: float) -> int:
    """Which interval of a histogram a duration belongs to, from 0."""
    if milliseconds <= _FIRST_MILLISECONDS:
        return 0
    return min(BUCKETS - 1, math.floor(math.log2(milliseconds / _FIRST_MILLISECONDS) * _PER_OCTAVE))


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """The duration in milliseconds that a share of the answers kept below; None without any answer."""
    wanted = sum(histogram) * share
    if not wanted:
        return None
    counted = 0.0
    for bucket, count in enumerate(histogram):
        if count and counted + count >= wanted:
            position = bucket + (wanted - counted) / count
            return float(_FIRST_MILLISECONDS * 2.0 ** (position / _PER_OCTAVE))
        counted += count
    raise ArithmeticError("a percentile behind the end of its histogram")


# -- workers


async def begin(connection: Connection) -> dict[str, Row]:
    """The conditions by service, in a transaction in which nobody else changes any."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('service-status', 0))")
    return {row["service"]: dict(row) for row in await connection.fetch("SELECT * FROM service_states")}


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return moment


async def write_conditions(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Put conditions in place: the columns of `service_states`, in their order."""
    await connection.executemany(
        """INSERT INTO service_states (service, state, since, verdict, probed_at, milliseconds, failures, impairments,
               successes, failing_since)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
           ON CONFLICT (service) DO UPDATE SET state = excluded.state, since = excluded.since,
               verdict = excluded.verdict, probed_at = excluded.probed_at,
               milliseconds = coalesce(excluded.milliseconds, service_states.milliseconds),
               failures = excluded.failures, impairments = excluded.impairments, successes = excluded.successes,
               failing_since = excluded.failing_since""",
        rows,
    )


async def count_probes(connection: Connection, rows: Sequence[tuple[str, datetime, str, int, float | None]]) -> None:
    """Add probes to their hours: service, moment, verdict, severity of the state that holds, milliseconds."""
    await connection.executemany(
        """INSERT INTO service_hours AS known (service, hour, operational, degraded, down, worst, milliseconds_sum,
               milliseconds_min, milliseconds_max, histogram)
           VALUES ($1, date_trunc('hour', $2::timestamptz, 'UTC'), ($3 = 'OPERATIONAL')::int, ($3 = 'DEGRADED')::int,
               ($3 = 'DOWN')::int, $4, coalesce($5::double precision, 0), $5, $5, $6)
           ON CONFLICT (hour, service) DO UPDATE SET operational = known.operational + excluded.operational,
               degraded = known.degraded + excluded.degraded, down = known.down + excluded.down,
               worst = greatest(known.worst, excluded.worst),
               milliseconds_sum = known.milliseconds_sum + excluded.milliseconds_sum,
               milliseconds_min = least(known.milliseconds_min, excluded.milliseconds_min),
               milliseconds_max = greatest(known.milliseconds_max, excluded.milliseconds_max),
               histogram = ARRAY(
                   SELECT a + b FROM unnest(known.histogram, excluded.histogram) WITH ORDINALITY AS both_of(a, b, place)
                   ORDER BY place
               )""",
        [(*row, _histogram(row[4])) for row in rows],
    )


async def write_changes(connection: Connection, rows: Sequence[tuple[str, str, datetime]]) -> None:
    """Keep states that services have from moments on."""
    await connection.executemany("INSERT INTO service_changes (service, state, at) VALUES ($1, $2, $3)", rows)


async def write_check(connection: Connection, service: str, verdict: str, milliseconds: float | None) -> None:
    """Keep what a heavy check found, now."""
    await connection.execute(
        """INSERT INTO service_checks (service, verdict, milliseconds, at) VALUES ($1, $2, $3, clock_timestamp())
           ON CONFLICT (service) DO UPDATE SET verdict = excluded.verdict, milliseconds = excluded.milliseconds,
               at = excluded.at""",
        service,
        verdict,
        milliseconds,
    )


async def checks(connection: Connection) -> dict[str, Row]:
    """What heavy checks found last, by service, with the moment."""
    return {row["service"]: dict(row) for row in await connection.fetch("SELECT * FROM service_checks")}


async def longest_waits(connection: Connection, without_kind: str) -> list[Row]:
    """Per kind of execution the longest wait of anybody who has none of it running, and whether anybody has.

    Whoever has one running may wait for their own; deployments, which have a probe of their own, are left out.
    """
    found: list[Row] = await connection.fetch(
        """WITH busy AS (
               SELECT DISTINCT kind, owner_id FROM executions WHERE status = 'RUNNING'
           ), waiting AS (
               SELECT kind, owner_id, min(queued_at) AS queued_at FROM executions WHERE status = 'QUEUED' AND kind <> $1
               GROUP BY kind, owner_id
           )
           SELECT kind, extract(epoch FROM clock_timestamp() - min(queued_at))::float8 AS seconds,
                  EXISTS (SELECT 1 FROM busy WHERE busy.kind = waiting.kind) AS is_worked_on
           FROM waiting
           WHERE NOT EXISTS (SELECT 1 FROM busy WHERE busy.kind = waiting.kind AND busy.owner_id = waiting.owner_id)
           GROUP BY kind""",
        without_kind,
    )
    return found


async def forget(connection: Connection) -> None:
    """Drop hours and changes that nobody is shown any more."""
    await connection.execute("DELETE FROM service_hours WHERE hour < now() - make_interval(days => $1)", KEPT_DAYS)
    await connection.execute(
        """DELETE FROM service_changes WHERE at < now() - make_interval(days => $1) OR id IN (
               SELECT id FROM (
                   SELECT id, row_number() OVER (PARTITION BY service ORDER BY id DESC) AS place FROM service_changes
               ) AS numbered WHERE place > $2
           )""",
        KEPT_DAYS,
        KEPT_CHANGES,
    )


def _histogram(milliseconds: float | None) -> list[int]:
    counts = [0] * BUCKETS
    if milliseconds is not None:
        counts[bucket_of(milliseconds)] = 1
    return counts


# -- the page


async def conditions() -> list[Row]:
    """How services are, with the age in seconds of what is known."""
    return await database.rows(
        """SELECT service, state, since, probed_at, milliseconds,
                  extract(epoch FROM clock_timestamp() - probed_at)::float8 AS age_seconds FROM service_states"""
    )


async def conditions_in_full() -> list[Row]:
    """As `conditions`, with the latest changes and the histograms of the last day and of the one before."""
    return await database.rows(
        """WITH counted AS (
               SELECT service, hour > now() - interval '24 hours' AS is_last, place, sum(count)::int AS count
               FROM service_hours, unnest(histogram) WITH ORDINALITY AS counts(count, place)
               WHERE hour > now() - interval '48 hours' GROUP BY 1, 2, 3
           ), histograms AS (
               SELECT service, is_last, array_agg(count ORDER BY place) AS histogram FROM counted GROUP BY 1, 2
           )
           SELECT service, state, since, probed_at, milliseconds,
                  extract(epoch FROM clock_timestamp() - probed_at)::float8 AS age_seconds,
                  (SELECT histogram FROM histograms h WHERE h.service = s.service AND is_last) AS histogram,
                  (SELECT histogram FROM histograms h WHERE h.service = s.service AND NOT is_last) AS histogram_before,
                  changes.states AS change_states, changes.moments AS change_moments
           FROM service_states s, LATERAL (
               SELECT array_agg(latest.state ORDER BY id DESC) AS states, array_agg(at ORDER BY id DESC) AS moments
               FROM (
                   SELECT id, c.state, c.at FROM service_changes c WHERE c.service = s.service ORDER BY id DESC LIMIT $1
               ) AS latest
           ) AS changes""",
        SHOWN_CHANGES,
    )


async def days(count: int) -> list[Row]:
    """The probes of each service on each of the last days, today included: what they found, and the worst state."""
    return await database.rows(
        """SELECT service, (hour AT TIME ZONE 'UTC')::date AS day, sum(operational)::int AS operational,
                  sum(degraded)::int AS degraded, sum(down)::int AS down, max(worst) AS worst
           FROM service_hours
           WHERE hour >= date_trunc('day', now(), 'UTC') - make_interval(days => $1 - 1)
           GROUP BY 1, 2 ORDER BY 2""",
        count,
    )


async def work() -> list[Row]:
    """What was asked for, and what became of it, by kind in the last day and in the one before it.

    Ids hold the moment of their making to the millisecond, so it is a range of the primary key.
    """
    return await database.rows(
        """SELECT kind, queued_at > now() - interval '24 hours' AS is_last, count(*)::int AS asked,
                  count(*) FILTER (WHERE status = 'SUCCEEDED')::int AS succeeded,
                  count(*) FILTER (WHERE status = 'FAILED')::int AS failed
           FROM executions
           WHERE id >= (lpad(to_hex((extract(epoch FROM now() - interval '49 hours') * 1000)::bigint), 12, '0')
                        || '00000000000000000000')::uuid
             AND queued_at > now() - interval '48 hours'
           GROUP BY 1, 2"""
    )
