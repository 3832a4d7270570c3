"""`make fuzz ARGS="--examples 20"`: every root field as nobody, a user, an administrator; code 1 for findings."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from models.permissions import Role
from tests.bench.place import place
from tests.factories import new_user
from tests.fuzz.runner import Fuzzer, Report


async def fuzz(examples: int, seed_number: int, only: str) -> int:
    """Run and print; how many findings there were."""
    found = 0
    async with place() as here:
        await here.worker()
        loop = asyncio.get_running_loop()
        for role in (None, Role.USER, Role.ADMIN):

            def sign_in(role: Role | None = role) -> str | None:
                if role is None:
                    return None
                made = asyncio.run_coroutine_threadsafe(new_user(here.client, role=role, db=here.db), loop)
                return made.result(30).token

            started = time.monotonic()

            def run(sign_in=sign_in) -> Report:  # type: ignore[no-untyped-def]
                return Fuzzer(here.api.graphql_url, sign_in).run(examples, seed_number, only=only)

            report = await asyncio.to_thread(run)
            name = "anonymous" if role is None else role.value
            print(
                f"{name}: {report.cases} cases in {time.monotonic() - started:.0f} s, {len(report.findings)} findings"
            )
            print(f"  {dict(report.codes.most_common())}; {report.replaced} sessions ended and replaced")
            for finding in report.findings.values():
                print(f"-- {name}, {finding.field}: {finding.reason}")
                print(f"   {json.dumps(finding.request)[:1_500]}\n   {finding.answer[:600]}")
            found += len(report.findings)
        for event in here.api.events("operation_failed") + here.api.events("request_failed"):
            print(json.dumps({key: event.get(key) for key in ("path", "exception")})[-1_500:])
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--examples", type=int, default=20, help="valid and broken operations for each root field")
    parser.add_argument("--seed", type=int, default=1, help="the same operations for the same number")
    parser.add_argument("--only", default="", help="root fields whose name contains this")
    options = parser.parse_args()
    sys.exit(1 if asyncio.run(fuzz(options.examples, options.seed, options.only)) else 0)


if __name__ == "__main__":
    main()
