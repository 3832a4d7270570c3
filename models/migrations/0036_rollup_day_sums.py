"""Sums of days follow the sums of quarter-hours: the key, the triggers, and what is there already.

Whoever changes `rollups` need not know of it: workers of an older version fold on while this one is being rolled out.
"""

# ruff: noqa: S608 - statements are joined from constants of this module

from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import UniqueConstraint

_SUMS = (
    *("created", "succeeded", "failed", "cancelled", "begun", "waited_ms", "worked_ms", "succeeded_ms", "built_ms"),
    *("items", "pages", "downloaded_bytes", "artifact_bytes", "uploaded_bytes", "log_bytes"),
)
_COLUMNS = ", ".join(_SUMS)
_DAY = "date_bin('1 day', at, '2000-01-01 00:00:00+00'::timestamptz)"


def _add(changes: str) -> str:
    """A statement that adds sums of quarter-hours to their days."""
    return f"""
        INSERT INTO rollup_days (owner_id, kind, label, at, {_COLUMNS})
        SELECT owner_id, kind, label, {_DAY}, {", ".join(f"sum({name})" for name in _SUMS)}
        FROM ({changes}) AS changes WHERE at <> '-infinity' GROUP BY 1, 2, 3, 4
        ON CONFLICT (owner_id, kind, at, label)
            DO UPDATE SET {", ".join(f"{name} = rollup_days.{name} + excluded.{name}" for name in _SUMS)}
    """


_ADDED = f"SELECT owner_id, kind, label, at, {_COLUMNS} FROM added"
_REMOVED = f"SELECT owner_id, kind, label, at, {', '.join(f'-{name} AS {name}' for name in _SUMS)} FROM removed"


def _function(name: str, changes: str, touched: str) -> str:
    return f"""
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {_add(changes)};
        DELETE FROM rollup_days WHERE ({_COLUMNS}) = ({", ".join(["0"] * len(_SUMS))}) AND (owner_id, kind, label, at) IN (
            SELECT owner_id, kind, label, {_DAY} FROM {touched} WHERE at <> '-infinity'
        );
        RETURN NULL;
    END $$
    """


_FORWARD = [
    "SET LOCAL statement_timeout = 0",
    # Folding waits meanwhile; nothing else writes here.
    "LOCK TABLE rollups IN SHARE ROW EXCLUSIVE MODE",
    _add("SELECT * FROM rollups"),
    _function("add_rollup_days", _ADDED, "added"),
    _function("change_rollup_days", f"{_ADDED} UNION ALL {_REMOVED}", "added"),
    _function("remove_rollup_days", _REMOVED, "removed"),
    *(
        f"""
        CREATE TRIGGER rollups_days_{event.lower()} AFTER {event} ON rollups REFERENCING {states}
        FOR EACH STATEMENT EXECUTE FUNCTION {function}()
        """
        for event, states, function in (
            ("INSERT", "NEW TABLE AS added", "add_rollup_days"),
            ("UPDATE", "OLD TABLE AS removed NEW TABLE AS added", "change_rollup_days"),
            ("DELETE", "OLD TABLE AS removed", "remove_rollup_days"),
        )
    ),
]

_BACKWARD = [
    *(f"DROP TRIGGER rollups_days_{event} ON rollups" for event in ("insert", "update", "delete")),
    *(f"DROP FUNCTION {name}_rollup_days()" for name in ("add", "change", "remove")),
    "TRUNCATE rollup_days",
]


class Migration(migrations.Migration):
    """Key, what is there already, then the triggers."""

    dependencies = [("models", "0035_rollup_days")]
    operations = [
        ops.AddConstraint(
            model_name="RollupDay",
            constraint=UniqueConstraint(fields=("owner_id", "kind", "at", "label"), name="rollup_days_key"),
        ),
        ops.RunSQL(_FORWARD, reverse_sql=_BACKWARD),
    ]
