"""All rows of the demo, written in one unit of work: nobody is told of them, and nothing of them waits to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from adapters import webhook_sender
from adapters.git import normalise_repository
from errors import Conflict
from models import demo, deployments, endpoint_queries, job_queries, project_queries, schedule_queries
from models.demo import DEMO_USER_ID
from models.ids import id_at
from models.notifications import NotificationKind
from models.projects import DeploymentEnvironment, SupersedePolicy
from models.schedules import MissedRunPolicy, OverlapPolicy
from models.sealed import ENVIRONMENT_VALUE, WEBHOOK_SECRET
from resolvers import sessions
from resolvers.demo import crawls, found, past, practice, price_list, reports, site_content, sites
from resolvers.demo.price_list import PriceList
from resolvers.demo.reports import Scan
from resolvers.ocr_jobs import BASE_SECONDS
from resolvers.scans import READING_SECONDS
from settings import Settings

USERNAME: Final = "demo"
DOMAIN: Final = "switchyard.internal"
_NAMES: Final = 20
_HOOK: Final = "https://hooks.example.com/switchyard"
_TOLD_DAYS: Final = 21
_READ_DAYS: Final = 3
_DEFAULTS: Final[Mapping[str, Any]] = {
    "branch": "main",
    "root_directory": ".",
    "auto_deploy": True,
    "preview_deployments": True,
    "supersede": SupersedePolicy.QUEUED.value,
    "install_scripts": False,
    "build_network": True,
    "submodules": False,
}


def read_documents(settings: Settings, now: datetime) -> tuple[list[Scan], PriceList]:
    """The reports, scanned, and the price list, read; takes seconds of processor time, most of it to load the rules."""
    return (
        reports.scans(now=now, timeout_seconds=settings.ai_timeout_seconds + READING_SECONDS),
        price_list.read(now=now, timeout_seconds=BASE_SECONDS + settings.ocr_page_seconds),
    )


async def write(settings: Settings, now: datetime, scans: list[Scan], prices: PriceList) -> None:
    """Write all rows in the current unit of work."""
    begun = now - crawls.HISTORY - timedelta(hours=2)
    await _add_account(begun)
    made = await _write_crawls(settings, now, begun)
    deployed = await _write_projects(settings, now, begun)
    await _write_executions([scan.ended for scan in scans])
    await demo.insert("scans", reports.scan_rows(scans))
    await demo.insert("scan_risks", reports.risk_rows(scans))
    await demo.insert("risk_triage", reports.decision_rows(scans, now=now))
    await demo.insert("media", [price_list.media_row(prices)])
    await _write_executions([prices.ended])
    await demo.insert("ocr_jobs", [price_list.job_row(prices)])
    await demo.insert("document_pages", [price_list.page_row(prices)])
    await demo.insert("product_candidates", price_list.candidate_rows(prices))
    await demo.insert("notifications", _notification_rows(made, deployed, now=now))
    await _add_endpoint(now - timedelta(days=20))
    await demo.silence([each.ended.id for each in deployed])


async def _add_account(created_at: datetime) -> None:
    for number in range(1, _NAMES + 1):
        name = USERNAME if number == 1 else f"{USERNAME}-{number}"
        if await demo.add_account(email=f"{name}@{DOMAIN}", username=name, name="Demo", created_at=created_at):
            return
    raise Conflict(f"The usernames {USERNAME} to {USERNAME}-{_NAMES} are all taken.")


async def _write_executions(ended: Sequence[past.Ended]) -> None:
    await demo.insert("executions", past.execution_rows(ended))
    await demo.insert("execution_events", past.event_rows(ended))
    await demo.insert("log_chunks", past.log_rows(ended))


async def _write_crawls(settings: Settings, now: datetime, begun: datetime) -> list[crawls.Run]:
    tools = await demo.tools()
    made: list[crawls.Run] = []
    for job in crawls.JOBS:
        if job.spider not in tools:
            continue
        job_id = id_at(begun)
        if not await job_queries.insert(
            job_id, owner_id=DEMO_USER_ID, tool_id=tools[job.spider], name=job.name, input=job.input
        ):
            continue
        ran = crawls.runs_of(job, job_id, tools[job.spider], now=now, timeout_seconds=settings.crawl_timeout_seconds)
        await demo.set_past("jobs", job_id, created_at=begun)
        await schedule_queries.put(
            job_id,
            cron_expression=job.cron,
            time_zone=crawls.ZONE,
            is_paused=True,
            overlap_policy=OverlapPolicy.SKIP,
            missed_run_policy=MissedRunPolicy.SKIP,
            limits={},
            next_run_at=now,
        )
        last_run_at = ran[-1].ended.queued_at if ran else None
        await demo.set_last_run(job_id, created_at=begun, last_run_at=last_run_at)
        made += ran
    made.sort(key=lambda run: run.ended.id)
    await _write_executions([run.ended for run in made])
    await demo.insert("job_runs", crawls.run_rows(made))
    await demo.insert("items", crawls.item_rows(made))
    await demo.insert("rejected_items", crawls.rejected_rows(made))
    await demo.insert("run_hosts", crawls.host_rows(made))
    await demo.insert("crawl_requests", crawls.failed_request_rows(made))
    await demo.insert("schedule_ticks", crawls.tick_rows(made))
    day = {"owner_id": DEMO_USER_ID, "day": now.date().isoformat(), "pages": crawls.pages_of_day(made, now)}
    await demo.insert("crawl_days", [day])
    await _write_found(made)
    return made


async def _write_found(made: Sequence[crawls.Run]) -> None:
    properties, history = found.property_rows([run for run in made if run.job.spider == "property_listings"])
    await demo.insert("properties", properties)
    await demo.insert("property_prices", history)
    # The catalogue is everybody's: where somebody has products, none are put beside them.
    if await demo.may_fill_catalogue():
        products, prices, sources = found.product_rows([run for run in made if run.job.spider == "catalogue"])
        await demo.insert("products", products)
        await demo.insert("product_prices", prices)
        await demo.insert("product_sources", sources)


async def _write_projects(settings: Settings, now: datetime, begun: datetime) -> list[sites.Deployment]:
    made: list[sites.Deployment] = []
    # Whether the practice repository can be fetched is decided by who builds; naming it is no harm.
    reader = settings.model_copy(
        update={"git_protocols": ("https", "http"), "build_allowed_hosts": (practice.BASE.removeprefix("http://"),)}
    )
    for project in sites.PROJECTS:
        project_id, slug = id_at(begun), project.slug
        repository = normalise_repository(project.repository, reader)
        columns = {
            **_DEFAULTS,
            "name": project.name,
            "repository": repository.url,
            "repository_key": repository.key,
            "framework": project.framework.value,
            "install_command": project.install,
            "build_command": project.build,
            "output_directory": project.output,
        }
        while not await project_queries.insert(project_id, owner_id=DEMO_USER_ID, columns={**columns, "slug": slug}):
            slug = f"{project.slug}-{id_at(begun).hex[-4:]}"
        deployed = sites.deployments_of(
            project, project_id, slug, now=now, timeout_seconds=settings.build_timeout_seconds
        )
        await demo.set_past("projects", project_id, created_at=begun)
        await demo.set_deployment_count(project_id, len(deployed))
        configuration = {name: columns.get(name) for name in project_queries.CONFIGURATION_COLUMNS}
        await _write_executions([each.ended for each in deployed])
        await demo.insert("deployments", sites.deployment_rows(deployed, configuration))
        moves, aliases = sites.publication_rows(deployed)
        await demo.insert("site_publications", moves)
        await demo.insert("site_aliases", aliases)
        if project.repository == site_content.GARDEN:
            await _set_greeting(project_id)
        made += deployed
    return made


async def _set_greeting(project_id: UUID) -> None:
    """What the next build of the garden says; those before had no variable."""
    sealed = []
    for environment in DeploymentEnvironment:
        variable_id = id_at(await demo.now())
        text = sessions.secret_box().seal("Hello from the demo", place=ENVIRONMENT_VALUE.place(variable_id))
        sealed.append((variable_id, environment.value, "GREETING", text))
    await project_queries.put_variables(project_id, sealed)


async def _add_endpoint(created_at: datetime) -> None:
    """A webhook that shows what one looks like; it is off, because nobody is there."""
    endpoint_id = id_at(created_at)
    await endpoint_queries.insert(
        endpoint_id,
        owner_id=DEMO_USER_ID,
        project_id=None,
        job_id=None,
        url=_HOOK,
        description="Where the team would hear of runs and deployments",
        event_types=None,
        sealed_secret=sessions.secret_box().seal(webhook_sender.new_secret(), place=WEBHOOK_SECRET.place(endpoint_id)),
    )
    await endpoint_queries.update(endpoint_id, {"is_active": False})


def _notification_rows(
    made: Sequence[crawls.Run], deployed: Sequence[sites.Deployment], *, now: datetime
) -> list[dict[str, Any]]:
    """What workers told of the last weeks, in the order of time; what is older than three days was read."""
    told: list[tuple[past.Ended, NotificationKind, str, str]] = []
    for run in made:
        kind = NotificationKind.JOB_INCOMPLETE if run.is_incomplete else NotificationKind.JOB_FAILED
        failed = run.ended.failure
        if run.is_incomplete or failed is not None:
            verb = "is incomplete" if failed is None else "failed"
            body = f"Items: {run.item_count:,}, pages: {len(run.pages):,}." if failed is None else failed.message
            told.append((run.ended, kind, f"A run of {run.job.name} {verb}", body))
    for each in deployed:
        subject = f"Deployment {each.number} of {each.project.name}"
        body = f"Branch {each.push.branch}, commit {each.commit[:7]}: {each.push.message}"
        if each.ended.failure is not None:
            kind = NotificationKind.DEPLOYMENT_FAILED
            told.append((each.ended, kind, f"{subject} failed", f"{body}\n{each.ended.failure.message}"))
        elif each.is_built:
            is_live = each.environment is DeploymentEnvironment.PRODUCTION
            state = "live" if is_live else "ready to preview"
            told.append((each.ended, NotificationKind.DEPLOYMENT_SUCCEEDED, f"{subject} is {state}", body))
    recent = [entry for entry in told if now - entry[0].finished_at < timedelta(days=_TOLD_DAYS)]
    return [
        {
            "id": id_at(ended.finished_at),
            "user_id": DEMO_USER_ID,
            "key": f"{'deployment' if ended.kind == deployments.KIND else 'execution'}:{ended.id}",
            "kind": kind.value,
            "title": title,
            "body": body,
            "execution_id": ended.id,
            "created_at": ended.finished_at,
            "read_at": (
                ended.finished_at + timedelta(hours=2) if now - ended.finished_at > timedelta(days=_READ_DAYS) else None
            ),
        }
        for ended, kind, title, body in sorted(recent, key=lambda entry: entry[0].finished_at)
    ]
