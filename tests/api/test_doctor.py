"""What `switchyard doctor` says about an installation that is there."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from adapters.doctor_service import check_database, check_mail, check_production
from adapters.embedded import children
from models import database
from settings import Environment, Settings
from tests.harness.executions import settings_of
from tests.harness.processes import run_cli


@pytest.fixture
def settings(settings_env: dict[str, str]) -> Settings:
    return settings_of(settings_env)


async def findings(settings: Settings) -> dict[str, Any]:
    return {finding.subject: finding for finding in await check_database(settings)}


async def test_an_idle_installation_is_fine(settings: Settings) -> None:
    found = await findings(settings)
    assert {subject: finding.ok for subject, finding in found.items()} == {
        "Migrations": True,
        "Clock": True,
        "Workers": True,
        "Outbox": True,
    }


async def test_work_without_workers_and_messages_given_up_are_problems(
    settings: Settings, db: asyncpg.Connection
) -> None:
    await db.execute(
        """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
               timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
           SELECT gen_random_uuid(), 'X', id, 'QUEUED', 0, 0, 0, 3, 60, 0, now() - interval '1 minute', false, 0, 0
           FROM users LIMIT 1"""
    )
    await db.execute(
        """INSERT INTO outbox_messages (topic, key, payload, due_at, attempts, created_at, given_up_at)
           VALUES ('x', 'x', '{}', now() + interval '1 day', 9, now(), now())"""
    )
    found = await findings(settings)
    assert (found["Workers"].ok, found["Workers"].advice) == (False, "start a worker: `switchyard worker`")
    assert "1 given up" in found["Outbox"].detail
    assert not found["Outbox"].ok
    await db.execute("DELETE FROM outbox_messages WHERE topic = 'x'")
    await db.execute("DELETE FROM executions WHERE kind = 'X'")


async def test_a_clock_that_is_off_and_missing_migrations_are_problems(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("adapters.doctor_service.time.time", lambda: 1_000_000.0)
        found = await findings(settings)
        assert (found["Clock"].ok, " s behind the database's" in found["Clock"].detail) == (False, True)
    monkeypatch.setattr(database, "known_migrations", lambda: ["9999_later"])
    assert [(finding.subject, finding.ok) for finding in await check_database(settings)] == [("Migrations", False)]


def test_settings_that_are_dangerous_in_production_are_named(settings: Settings) -> None:
    assert check_production(settings) == []
    bare = settings.model_copy(update={"environment": Environment.PRODUCTION})
    assert {finding.subject for finding in check_production(bare)} == {"RATE_LIMITS", "SMTP_HOST"}
    good = bare.model_copy(update={"rate_limits": True, "smtp_host": "mail.example"})
    assert [finding.ok for finding in check_production(good)] == [True]


async def test_a_mail_server_that_does_not_answer_is_a_problem(settings: Settings) -> None:
    nowhere = settings.model_copy(
        update={"smtp_host": "127.0.0.1", "smtp_port": children.free_port(), "smtp_password": SecretStr("hunter2")}
    )
    finding = await check_mail(nowhere)
    assert not finding.ok
    assert "hunter2" not in finding.detail


def test_json_is_for_programs(settings_env: dict[str, str]) -> None:
    found = json.loads(run_cli("doctor", "--json", environment={**settings_env, "WORKER_BUILD_SLOTS": "0"}))
    assert all(finding["ok"] for finding in found)
    assert {"Disk", "Time zones", "Outbox"} <= {finding["subject"] for finding in found}
