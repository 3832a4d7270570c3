"""What webhooks cost: the trigger on executions with no, one and twenty endpoints, and how many are told in a second.

The baseline of the trigger is the same work with the trigger switched off, in the same run; of sending, one endpoint
while another one of the same worker is silent.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any, Final
from uuid import UUID

from adapters.secret_box import SecretBox
from adapters.webhook_sender import new_secret
from models.ids import new_id
from models.sealed import WEBHOOK_SECRET
from tests.bench.place import Place, place
from tests.harness.executions import settings_of
from tests.harness.waiting import eventually
from tests.harness.webhook_receiver import Answer, WebhookReceiver, webhook_receiver

EXECUTIONS: Final = 400
ROUNDS: Final = 5
DISPATCHES: Final = 600


async def trigger(at: Place) -> None:
    """Inserting and finishing scans, in one transaction each."""
    medians: dict[str, float] = {}
    scenes = [("trigger off", 0), ("no endpoint", 0), ("1 endpoint", 1), ("20 endpoints", 20)]
    samples: dict[str, list[float]] = {name: [] for name, _ in scenes}
    for _ in range(ROUNDS):
        for name, endpoints in scenes:
            await at.db.execute("DELETE FROM webhook_endpoints")
            await at.db.execute("DELETE FROM outbox_messages")
            for _ in range(endpoints):
                await insert_endpoint(at, "https://93.184.215.14/")
            switch = "DISABLE" if name == "trigger off" else "ENABLE"
            await at.db.execute(f"ALTER TABLE executions {switch} TRIGGER executions_news_status")
            began = time.perf_counter()
            for _ in range(EXECUTIONS):
                await finish_one(at)
            samples[name].append((time.perf_counter() - began) / EXECUTIONS * 1_000)
    for name, _ in scenes:
        medians[name] = statistics.median(samples[name])
        ratio = medians[name] / medians["trigger off"]
        print(f"{name:>14}: {medians[name]:6.3f} ms for insert, start, end of an execution; × {ratio:.2f}")
    await at.db.execute("ALTER TABLE executions ENABLE TRIGGER executions_news_status")
    await at.db.execute("DELETE FROM webhook_endpoints")
    await at.db.execute("DELETE FROM outbox_messages")


async def finish_one(at: Place) -> None:
    """A scan from its beginning to its end, as rows."""
    async with at.db.transaction():
        execution = await at.execution("SCAN")
        await at.db.execute(
            """UPDATE executions SET status = 'RUNNING', attempt = 1, worker = 'bench',
                   lease_until = now() + interval '1 hour', started_at = now() WHERE id = $1""",
            execution,
        )
        await at.db.execute(
            """UPDATE executions SET status = 'SUCCEEDED', worker = NULL, lease_until = NULL, finished_at = now()
               WHERE id = $1""",
            execution,
        )


async def sending(at: Place) -> None:
    """Dispatches of ten endpoints through one worker, alone and beside one that is silent with a long queue."""
    async with webhook_receiver() as receiver:
        at.environment["WEBHOOK_ALLOWED_HOSTS"] = receiver.allowed
        await at.worker()
        rates = {}
        for name, silent in (("alone", 0), ("beside a silent one with 2,000 due", 2_000)):
            if silent:
                dead = await insert_endpoint(at, receiver.url("silent"))
                receiver.answer("silent", *[Answer(held=True)] * silent)
                await insert_dispatches(at, dead, silent)
            names = [f"{silent}-{number}" for number in range(10)]
            targets = [(await insert_endpoint(at, receiver.url(key)), key) for key in names]
            began = time.perf_counter()
            for endpoint, _ in targets:
                await insert_dispatches(at, endpoint, DISPATCHES // 10)
            await _all_received(receiver, [key for _, key in targets])
            rates[name] = DISPATCHES / (time.perf_counter() - began)
            print(f"{rates[name]:7.0f} dispatches/s {name}; × {rates[name] / rates['alone']:.2f}")
        receiver.release()


async def _all_received(receiver: WebhookReceiver, names: list[str]) -> None:
    await eventually(lambda: sum(len(receiver.requests[name]) for name in names) >= DISPATCHES, 120)


async def insert_endpoint(at: Place, url: str) -> UUID:
    """An active endpoint for everything."""
    endpoint = new_id()
    sealed = SecretBox(settings_of(at.environment).keyring).seal(new_secret(), place=WEBHOOK_SECRET.place(endpoint))
    await at.db.execute(
        """INSERT INTO webhook_endpoints (id, owner_id, url, description, sealed_secret, is_active, created_at,
               updated_at) VALUES ($1, $2, $3, '', $4, true, now(), now())""",
        endpoint,
        at.owner_id,
        url,
        sealed,
    )
    return endpoint


async def insert_dispatches(at: Place, endpoint: UUID, count: int) -> None:
    """So many that are due now."""
    payload: dict[str, Any] = {"type": "run.succeeded", "data": {"id": "run_" + "0" * 26, "filler": "x" * 800}}
    await at.db.execute(
        """INSERT INTO webhook_dispatches (id, endpoint_id, event_id, event_type, payload, state, attempts,
               attempts_before, next_attempt_at, attempt_log, created_at)
           SELECT id, $2, id, 'run.succeeded', $3, 'PENDING', 0, 0, now(), '[]', now() FROM unnest($1::uuid[]) AS id""",
        [new_id() for _ in range(count)],
        endpoint,
        json.dumps(payload),
    )


async def main() -> None:
    """Both measurements."""
    async with place() as here:
        await trigger(here)
        await sending(here)
