"""What people decide about risks: open, accepted, mitigated, or none at all; for good or until a moment.

A decision belongs to a sentence of a document (its fingerprint under the document's key) of an owner, so later scans of
the document know it. Invariant: one decision per sentence, the last one counts; one whose time has passed opens the
risk again without anybody doing anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from adapters import events
from errors import ValidationFailed
from models import scan_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import ExecutionChanged
from models.ids import Prefix, encode_id
from models.permissions import Actor, Permission
from models.scans import TriageState
from models.transaction import unit_of_work
from resolvers import access, texts

MAX_NOTE_LENGTH: Final = 2_000
MAX_YEAR: Final = 9_000


async def decide(actor: Actor, risk_id: str, *, state: TriageState, note: str | None, until: datetime | None) -> Row:
    """Decide about a risk, and so about its like in other scans of the document; the risk as it is then.

    Raises ValidationFailed for a moment that is past, and for one with OPEN, which needs no end.
    """
    row = await access.risk(actor, risk_id, to=Permission.SCAN_WRITE)
    said = None if note is None else texts.prose(note, path=["input", "note"], max_length=MAX_NOTE_LENGTH) or None
    if until is not None:
        if state is TriageState.OPEN:
            raise ValidationFailed("An open risk has no `until`.", path=["input", "until"])
        if until <= datetime.now(UTC) or until.year > MAX_YEAR:
            raise ValidationFailed("`until` must be in the future.", path=["input", "until"])
    async with unit_of_work():
        await scan_queries.decide(
            row["owner_id"],
            row["document_key"],
            row["fingerprint"],
            state=state,
            note=said,
            decided_by=actor.user_id,
            until=until,
        )
        await AuditEvent.record(
            actor,
            "triageRisk",
            target_type="risk",
            target_id=row["id"],
            details={
                "scan": encode_id(Prefix.SCAN, row["scan_id"]),
                "state": state.value,
                "until": None if until is None else until.isoformat(),
            },
        )
        await events.publish(ExecutionChanged(row["scan_id"], row["owner_id"]))
        decided = (await scan_queries.find_risks([row["id"]])).get(row["id"])
        if decided is None:
            raise access.missing()
    return decided
