"""Facts and sums that follow their executions: the functions and triggers, and what is there already.

`refresh_execution_fact` writes a fact from what is there, so it may be called once too often; `add_rollup_deltas` tells
sums the difference. Only rows of the execution itself are written, and appended, so triggers make nobody wait.
"""

# ruff: noqa: S608 - statements are joined from constants of this module

from tortoise import migrations
from tortoise.migrations import operations as ops

_SUMS = (
    *("created", "succeeded", "failed", "cancelled", "begun", "waited_ms", "worked_ms", "succeeded_ms", "built_ms"),
    *("items", "pages", "downloaded_bytes", "artifact_bytes", "uploaded_bytes", "log_bytes"),
)
_FACT = (
    *("execution_id", "owner_id", "kind", "target_id", "queued_at", "finished_at", "outcome"),
    *("waited_ms", "worked_ms", "built_ms", "items", "pages", "downloaded_bytes", "artifact_bytes", "uploaded_bytes"),
    *("log_bytes", "risks"),
)
_SLICES = 32

_SUM_COLUMNS = ", ".join(_SUMS)
_FACT_COLUMNS = ", ".join(_FACT)
_CHANGING = _FACT[1:]

# What an execution brought counts when it has ended; until then all of it is zero.
_FACTS = """
SELECT e.id, e.owner_id, e.kind, coalesce(d.project_id, r.tool_id), e.queued_at, e.finished_at,
       CASE WHEN ended THEN e.status END,
       CASE WHEN ended THEN round(extract(epoch FROM e.started_at - e.queued_at) * 1000)::bigint END,
       CASE WHEN ended THEN round(extract(epoch FROM e.finished_at - e.started_at) * 1000)::bigint END,
       CASE WHEN ended THEN round(d.build_seconds * 1000)::bigint END,
       CASE WHEN ended THEN coalesce(r.items_scraped, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(r.pages_crawled, o.pages_read, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(r.bytes_downloaded, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(d.artifact_size, 0) ELSE 0 END,
       CASE WHEN ended THEN coalesce(d.uploaded_bytes, 0) ELSE 0 END,
       CASE WHEN ended THEN e.log_bytes ELSE 0 END,
       CASE WHEN ended AND s.execution_id IS NOT NULL THEN (
           SELECT jsonb_object_agg(label, risks) FROM (
               SELECT severity || ':' || category AS label, count(*) AS risks FROM scan_risks
               WHERE scan_id = e.id GROUP BY severity, category
           ) AS counted
       ) END
FROM executions e
CROSS JOIN LATERAL (SELECT e.finished_at IS NOT NULL AS ended) AS state
LEFT JOIN deployments d ON d.execution_id = e.id
LEFT JOIN job_runs r ON r.execution_id = e.id
LEFT JOIN scans s ON s.execution_id = e.id
LEFT JOIN ocr_jobs o ON o.execution_id = e.id
"""

# The moments that an execution counts at.
_SUMS_OF_FACT = f"""
SELECT fact.owner_id, fact.kind, ''::varchar AS label, quarter_hour(fact.queued_at) AS at,
       1::bigint AS created, {", ".join(f"0::bigint AS {name}" for name in _SUMS[1:])}
UNION ALL
SELECT fact.owner_id, fact.kind, ''::varchar, quarter_hour(fact.finished_at),
       0::bigint, (fact.outcome = 'SUCCEEDED')::int::bigint, (fact.outcome = 'FAILED')::int::bigint,
       (fact.outcome = 'CANCELLED')::int::bigint, (fact.worked_ms IS NOT NULL)::int::bigint,
       coalesce(fact.waited_ms, 0), coalesce(fact.worked_ms, 0),
       CASE WHEN fact.outcome = 'SUCCEEDED' THEN coalesce(fact.worked_ms, 0) ELSE 0 END,
       coalesce(fact.built_ms, 0), fact.items, fact.pages, fact.downloaded_bytes, fact.artifact_bytes,
       fact.uploaded_bytes, fact.log_bytes
WHERE fact.finished_at IS NOT NULL
UNION ALL
SELECT fact.owner_id, 'RISK'::varchar, risk.key::varchar, quarter_hour(fact.finished_at),
       risk.value::bigint, {", ".join("0::bigint" for _ in _SUMS[1:])}
FROM jsonb_each_text(fact.risks) AS risk WHERE fact.finished_at IS NOT NULL AND fact.risks IS NOT NULL
"""

_FUNCTIONS = [
    """
    CREATE FUNCTION quarter_hour(timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT date_bin('15 minutes', $1, '2000-01-01 00:00:00+00'::timestamptz)
    $$
    """,
    f"""
    CREATE FUNCTION refresh_execution_fact(refreshed uuid) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO execution_facts ({_FACT_COLUMNS}) {_FACTS} WHERE e.id = refreshed
        ON CONFLICT (execution_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}
        WHERE ({", ".join(f"execution_facts.{name}" for name in _CHANGING)})
            IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _CHANGING)});
    END $$
    """,
    f"""
    CREATE FUNCTION sums_of_fact(fact execution_facts)
    RETURNS TABLE (owner_id uuid, kind varchar, label varchar, at timestamptz,
                   {", ".join(f"{name} bigint" for name in _SUMS)})
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    BEGIN
        RETURN QUERY {_SUMS_OF_FACT};
    END $$
    """,
    f"""
    CREATE FUNCTION add_rollup_deltas() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO rollup_deltas (owner_id, kind, label, at, {_SUM_COLUMNS}) SELECT * FROM sums_of_fact(NEW);
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO rollup_deltas (owner_id, kind, label, at, {_SUM_COLUMNS})
            SELECT owner_id, kind, label, at, {", ".join(f"-{name}" for name in _SUMS)} FROM sums_of_fact(OLD);
        ELSE
            INSERT INTO rollup_deltas (owner_id, kind, label, at, {_SUM_COLUMNS})
            SELECT owner_id, kind, label, at, {", ".join(f"sum({name})" for name in _SUMS)} FROM (
                SELECT * FROM sums_of_fact(NEW)
                UNION ALL
                SELECT owner_id, kind, label, at, {", ".join(f"-{name}" for name in _SUMS)} FROM sums_of_fact(OLD)
            ) AS both_states
            GROUP BY owner_id, kind, label, at
            HAVING ({", ".join(f"sum({name})" for name in _SUMS)}) <> ({", ".join(["0"] * len(_SUMS))});
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION follow_execution() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_execution_fact(NEW.id);
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION begin_execution_fact() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_execution_fact(NEW.execution_id);
        RETURN NULL;
    END $$
    """,
    # Until an execution ends its kind's row changes often, and none of it counts yet.
    """
    CREATE FUNCTION follow_kind() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_execution_fact(execution_id) FROM execution_facts
        WHERE execution_id = NEW.execution_id AND finished_at IS NOT NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION follow_risks() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM refresh_execution_fact(execution_id) FROM execution_facts
        WHERE execution_id IN (SELECT scan_id FROM touched) AND finished_at IS NOT NULL;
        RETURN NULL;
    END $$
    """,
]

_INDEXES = [
    # All that durations are made of, so that a range is read from the index alone.
    """
    CREATE INDEX execution_facts_owner ON execution_facts (owner_id, kind, finished_at)
        INCLUDE (target_id, outcome, worked_ms, built_ms, items) WHERE finished_at IS NOT NULL
    """,
    """
    CREATE INDEX execution_facts_kind ON execution_facts (kind, finished_at)
        INCLUDE (target_id, outcome, worked_ms, built_ms, items) WHERE finished_at IS NOT NULL
    """,
    # Deltas live for seconds: their dead rows must not wait for a fifth of a table that is always nearly empty.
    "ALTER TABLE rollup_deltas SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)",
]

# In slices, because a statement of a migration may take 15 seconds.
_EXISTING = [
    "SET LOCAL statement_timeout = 0",
    "LOCK TABLE executions, deployments, job_runs, scans, scan_risks, ocr_jobs IN SHARE ROW EXCLUSIVE MODE",
    *(
        f"""
        INSERT INTO execution_facts ({_FACT_COLUMNS}) {_FACTS}
        WHERE num_nonnulls(d.execution_id, r.execution_id, s.execution_id, o.execution_id) > 0
            AND get_byte(uuid_send(e.id), 15) % {_SLICES} = {number}
        """
        for number in range(_SLICES)
    ),
    *(
        f"""
        INSERT INTO rollups (owner_id, kind, label, at, {_SUM_COLUMNS})
        SELECT sums.owner_id, sums.kind, label, at, {", ".join(f"sum(sums.{name})" for name in _SUMS)}
        FROM execution_facts fact CROSS JOIN LATERAL ({_SUMS_OF_FACT}) AS sums
        WHERE get_byte(uuid_send(fact.owner_id), 15) % {_SLICES} = {number}
        GROUP BY sums.owner_id, sums.kind, label, at
        """
        for number in range(_SLICES)
    ),
    f"""
    INSERT INTO rollups (owner_id, kind, label, at, {_SUM_COLUMNS})
    SELECT '00000000-0000-0000-0000-000000000000', kind, label, at, {", ".join(f"sum({name})" for name in _SUMS)}
    FROM rollups GROUP BY kind, label, at
    """,
    f"""
    INSERT INTO rollups (owner_id, kind, label, at, {_SUM_COLUMNS})
    SELECT owner_id, kind, label, '-infinity', {", ".join(f"sum({name})" for name in _SUMS)}
    FROM rollups GROUP BY owner_id, kind, label
    """,
]

_TRIGGERS = [
    """
    CREATE TRIGGER execution_facts_sums AFTER INSERT OR UPDATE OR DELETE ON execution_facts
    FOR EACH ROW EXECUTE FUNCTION add_rollup_deltas()
    """,
    """
    CREATE TRIGGER executions_fact AFTER UPDATE OF status, owner_id ON executions FOR EACH ROW
    WHEN (NEW.finished_at IS NOT NULL OR NEW.owner_id <> OLD.owner_id) EXECUTE FUNCTION follow_execution()
    """,
    *(
        f"""
        CREATE TRIGGER {table}_fact_begins AFTER INSERT ON {table}
        FOR EACH ROW EXECUTE FUNCTION begin_execution_fact()
        """
        for table in ("deployments", "job_runs", "scans", "ocr_jobs")
    ),
    *(
        f"""
        CREATE TRIGGER {table}_fact AFTER UPDATE OF {", ".join(columns)} ON {table} FOR EACH ROW
        WHEN (({", ".join(f"OLD.{name}" for name in columns)}) IS DISTINCT FROM
              ({", ".join(f"NEW.{name}" for name in columns)}))
        EXECUTE FUNCTION follow_kind()
        """
        for table, columns in (
            ("deployments", ("project_id", "build_seconds", "artifact_size", "uploaded_bytes")),
            ("job_runs", ("tool_id", "items_scraped", "pages_crawled", "bytes_downloaded")),
            ("ocr_jobs", ("pages_read",)),
        )
    ),
    *(
        f"""
        CREATE TRIGGER scan_risks_fact_{event.lower()} AFTER {event} ON scan_risks
        REFERENCING {state} TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION follow_risks()
        """
        for event, state in (("INSERT", "NEW"), ("DELETE", "OLD"))
    ),
]

_BACKWARD = [
    "DROP TRIGGER scan_risks_fact_delete ON scan_risks",
    "DROP TRIGGER scan_risks_fact_insert ON scan_risks",
    *(f"DROP TRIGGER {table}_fact ON {table}" for table in ("deployments", "job_runs", "ocr_jobs")),
    *(f"DROP TRIGGER {table}_fact_begins ON {table}" for table in ("deployments", "job_runs", "scans", "ocr_jobs")),
    "DROP TRIGGER executions_fact ON executions",
    "DROP TRIGGER execution_facts_sums ON execution_facts",
    "DROP INDEX execution_facts_kind",
    "DROP INDEX execution_facts_owner",
    "ALTER TABLE rollup_deltas RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)",
    "DROP FUNCTION follow_risks()",
    "DROP FUNCTION follow_kind()",
    "DROP FUNCTION begin_execution_fact()",
    "DROP FUNCTION follow_execution()",
    "DROP FUNCTION add_rollup_deltas()",
    "DROP FUNCTION sums_of_fact(execution_facts)",
    "DROP FUNCTION refresh_execution_fact(uuid)",
    "DROP FUNCTION quarter_hour(timestamptz)",
    "TRUNCATE execution_facts, rollup_deltas, rollups",
]


class Migration(migrations.Migration):
    """Functions, indexes, what is there already, then the triggers."""

    dependencies = [("models", "0029_rollup_constraints")]
    operations = [ops.RunSQL([*_FUNCTIONS, *_EXISTING, *_INDEXES, *_TRIGGERS], reverse_sql=_BACKWARD)]
