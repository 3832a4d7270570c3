"""`make bench ARGS=name`: one benchmark, or all but `start`, which installs everything anew."""

from __future__ import annotations

import argparse
import asyncio

from tests.bench import (
    analytics,
    backup,
    candidates,
    crawl_memory,
    crawl_speed,
    deployments,
    enqueue,
    exports,
    limits,
    log_lines,
    logins,
    metrics,
    ocr,
    products,
    properties,
    recovery,
    risk_rules,
    run_list,
    scans,
    schedules,
    sites,
    start,
    webhooks,
)

BENCHES = {
    "analytics": analytics.main,
    "backup": backup.main,
    "candidates": candidates.main,
    "crawl_memory": crawl_memory.main,
    "crawl_speed": crawl_speed.main,
    "enqueue": enqueue.main,
    "exports": exports.main,
    "limits": limits.main,
    "logins": logins.main,
    "metrics": metrics.main,
    "log_lines": log_lines.main,
    "products": products.main,
    "properties": properties.main,
    "run_list": run_list.main,
    "recovery": recovery.main,
    "risk_rules": risk_rules.main,
    "scans": scans.main,
    "schedules": schedules.main,
    "ocr": ocr.main,
    "sites": sites.main,
    "deployments_overhead": deployments.overhead,
    "deployments_push": deployments.push_to_live,
    "deployments_queue": deployments.queue,
    "webhooks": webhooks.main,
    "start": start.main,
}


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which; all but start when none is named")
    names = parser.parse_args().names or [name for name in BENCHES if name != "start"]
    for name in names:
        print(f"-- {name}")
        asyncio.run(BENCHES[name]())


if __name__ == "__main__":
    main()
