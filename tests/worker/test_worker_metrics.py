"""What a worker counts, on the port that it has for its operators, and what it logs of an execution."""

from __future__ import annotations

import secrets

import httpx

from adapters.embedded import children
from models.executions import ExecutionStatus
from tests.api.test_system_metrics import Scrape, fetch, scrape
from tests.harness.waiting import eventually
from tests.worker.engine import Bench, bench, benches

__all__ = ["bench", "benches"]


async def test_a_worker_counts_exactly_what_it_did(bench: Bench) -> None:
    port = str(children.free_port())
    url = f"http://127.0.0.1:{port}"
    worker = await bench.worker(METRICS_PORT=port)
    kind = bench.kind
    good = await bench.queue({"progress": 10, "stage": "ONE"}, {"lines": 3}, {"progress": 50, "stage": "TWO"})
    bad = await bench.queue({"lines": 2}, {"fail": "COMMAND_FAILED", "message": b"no".hex()})
    await bench.verdict(good, ExecutionStatus.SUCCEEDED, within=20)
    await bench.ended(bad, 20)

    async def done() -> Scrape | None:
        found = await scrape(url)
        return found if found.value("switchyard_execution_duration_seconds_count", kind=kind) == 2 else None

    found = await eventually(done)
    assert found.value("switchyard_executions_started_total", kind=kind) == 2
    assert found.value("switchyard_executions_finished_total", kind=kind, result="SUCCEEDED") == 1
    assert found.value("switchyard_executions_finished_total", kind=kind, result="COMMAND_FAILED") == 1
    assert found.value("switchyard_executions_finished_total") == 2
    assert found.value("switchyard_execution_wait_seconds_count", kind=kind) == 2
    assert found.labels("switchyard_execution_stage_duration_seconds_count", "stage") == {"ONE", "TWO"}
    assert found.value("switchyard_log_lines_total") == 5
    assert found.value("switchyard_log_bytes_total") == 5 * len("attempt 1 line 1")
    assert found.value("switchyard_worker_slots", kind=kind, state="all") == 4
    assert found.value("switchyard_worker_slots", kind=kind, state="busy") == 0
    assert found.value("switchyard_leases_lost_total") == 0
    assert found.value("switchyard_sweeps_total") > 0
    assert found.value("switchyard_database_pool_connections", pool="main", state="open") > 0
    assert (await fetch(url, Host="rebound.example")).status_code == 404
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{url}/healthz")).json()["status"] == "alive"
    lines = [line for line in worker.events() if line.get("execution_id") == str(good)]
    assert {"execution_started", "execution_finished"} <= {line["event"] for line in lines}
    assert all((line["kind"], line["attempt"]) == (kind, 1) for line in lines)


async def test_a_port_that_is_taken_stops_no_work_and_a_token_is_asked_for(bench: Bench) -> None:
    token, port = secrets.token_urlsafe(), str(children.free_port())
    first = await bench.worker(METRICS_PORT=port, METRICS_TOKEN=token)
    await first.wait_event("metrics_served")
    second = await bench.worker(METRICS_PORT=port)
    await second.wait_event("metrics_not_served")
    assert (await fetch(f"http://127.0.0.1:{port}")).status_code == 401
    shown = await scrape(f"http://127.0.0.1:{port}", Authorization=f"Bearer {token}")
    assert shown.value("switchyard_build_info") == 1
    await bench.verdict(await bench.queue({"lines": 1}), ExecutionStatus.SUCCEEDED, within=20)
