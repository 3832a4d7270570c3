"""What clients see: the schema, joined from one mix-in per domain, and its printed form.

Each `schema/x.py` brings classes such as `JobsQuery`, `JobsMutation`, `ExecutionsSubscription`; listing them below is
all it takes to publish them. Invariant: the schema does not depend on settings, so `schema.graphql` holds for every
installation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import strawberry
from strawberry.schema.config import StrawberryConfig

from schema import uploads
from schema.access_tokens import AccessTokensMutation, AccessTokensQuery
from schema.account import AccountMutation, AccountQuery
from schema.analytics import AnalyticsQuery
from schema.audit import AuditQuery
from schema.candidate_commands import CandidatesMutation
from schema.dashboard import DashboardQuery
from schema.deployment_commands import DeploymentsMutation
from schema.deployments import Deployment, DeploymentsQuery
from schema.detection import DetectionQuery
from schema.executions import ExecutionsSubscription
from schema.export_commands import ItemExportsMutation
from schema.github import GithubMutation, GithubQuery
from schema.incidents import IncidentsMutation, IncidentsQuery
from schema.item_exports import ItemExport, ItemExportsQuery
from schema.job_commands import JobsMutation
from schema.jobs import JobsQuery
from schema.media import MediaMutation, MediaQuery
from schema.node import NodeQuery
from schema.notifications import NotificationsMutation, NotificationsQuery, NotificationsSubscription
from schema.oauth_sign_in import OAuthSignInMutation, OAuthSignInQuery
from schema.ocr_commands import OcrJobsMutation
from schema.ocr_jobs import OcrJob, OcrJobsQuery
from schema.preferences import PreferencesMutation, PreferencesQuery
from schema.previews import PreviewsMutation
from schema.product_commands import ProductsMutation
from schema.product_files import ProductFilesMutation
from schema.products import ProductsQuery
from schema.project_commands import ProjectsMutation
from schema.projects import ProjectsQuery
from schema.properties import PropertiesQuery
from schema.property_commands import PropertiesMutation
from schema.run_commands import RunsMutation
from schema.run_ledger import RunLedgerQuery
from schema.runs import JobRun, RunsQuery
from schema.scalars import SCALARS
from schema.scan_commands import ScansMutation
from schema.scan_reports import ScanReportsQuery
from schema.scans import Scan, ScansQuery
from schema.schedule_commands import SchedulesMutation
from schema.schedules import SchedulesQuery
from schema.second_factor import SecondFactorMutation
from schema.sign_in import SignInMutation
from schema.status import StatusQuery, StatusSubscription
from schema.system import SystemQuery, SystemSubscription
from schema.tools import ToolsMutation, ToolsQuery
from schema.user_administration import UserAdministrationMutation, UserAdministrationQuery
from schema.users import UsersQuery
from schema.webhook_commands import WebhookEndpointsMutation
from schema.webhook_endpoints import WebhookEndpointsQuery
from schema.webhooks import WebhooksMutation, WebhooksQuery

_QUERIES: tuple[type, ...] = (
    NodeQuery,
    UsersQuery,
    UserAdministrationQuery,
    AccountQuery,
    AccessTokensQuery,
    OAuthSignInQuery,
    AuditQuery,
    ToolsQuery,
    JobsQuery,
    SchedulesQuery,
    RunsQuery,
    ItemExportsQuery,
    RunLedgerQuery,
    ProjectsQuery,
    DetectionQuery,
    DeploymentsQuery,
    MediaQuery,
    ScansQuery,
    ScanReportsQuery,
    OcrJobsQuery,
    GithubQuery,
    WebhooksQuery,
    WebhookEndpointsQuery,
    NotificationsQuery,
    PreferencesQuery,
    ProductsQuery,
    PropertiesQuery,
    DashboardQuery,
    SystemQuery,
    AnalyticsQuery,
    StatusQuery,
    IncidentsQuery,
)
_MUTATIONS: tuple[type, ...] = (
    SignInMutation,
    OAuthSignInMutation,
    AccountMutation,
    UserAdministrationMutation,
    SecondFactorMutation,
    AccessTokensMutation,
    ToolsMutation,
    JobsMutation,
    SchedulesMutation,
    RunsMutation,
    PreviewsMutation,
    ItemExportsMutation,
    ProjectsMutation,
    DeploymentsMutation,
    MediaMutation,
    ScansMutation,
    OcrJobsMutation,
    CandidatesMutation,
    GithubMutation,
    WebhooksMutation,
    WebhookEndpointsMutation,
    NotificationsMutation,
    PreferencesMutation,
    ProductsMutation,
    ProductFilesMutation,
    PropertiesMutation,
    IncidentsMutation,
)
_SUBSCRIPTIONS: tuple[type, ...] = (
    ExecutionsSubscription,
    NotificationsSubscription,
    SystemSubscription,
    StatusSubscription,
)
_TYPES: tuple[type, ...] = (JobRun, Deployment, Scan, OcrJob, ItemExport)
"""Types that only an interface leads to."""


@cache
def build_schema() -> strawberry.Schema:
    """The schema of Switchyard."""
    return assemble(queries=_QUERIES, mutations=_MUTATIONS, subscriptions=_SUBSCRIPTIONS, types=_TYPES)


def sdl() -> str:
    """The schema definition language text of the schema, with a newline at its end."""
    return build_schema().as_str().rstrip() + "\n"


def assemble(
    *,
    queries: Sequence[type],
    mutations: Sequence[type] = (),
    subscriptions: Sequence[type] = (),
    types: Sequence[type] = (),
) -> strawberry.Schema:
    """A schema of these mix-ins; `types` are those that only an interface leads to."""
    query = _joined("Query", queries, "What can be read.")
    if query is None:
        raise ValueError("a schema needs a query")
    return strawberry.Schema(
        query=query,
        mutation=_joined("Mutation", mutations, "What can be changed."),
        subscription=_joined("Subscription", subscriptions, "What can be watched."),
        types=types,
        config=StrawberryConfig(scalar_map={**SCALARS, **uploads.SCALARS}),
    )


def _joined(name: str, parts: Sequence[type], description: str) -> type[Any] | None:
    if not parts:
        return None
    return strawberry.type(type(name, tuple(parts), {}), name=name, description=description)
