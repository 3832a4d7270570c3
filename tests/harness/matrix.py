"""The authorization matrix, declared: what each id argument names, and where the rule has an exception.

`tests/api/test_authorization_matrix.py` asks every root field of the schema as every kind of caller. The documents are
derived from the schema (`matrix_documents.py`), the objects are made by `matrix_world.py`, and asking is
`matrix_calls.py`'s. Nothing has to be said of a field that takes no id and whose required arguments are plain; all the
rest is said here, so a field that is added without being thought about fails the tests.

To add a root field:

1. Declare `requires(…)` or `public()` on it. A public one also goes into `PUBLIC`, with the reason.
2. For each argument of type ID, inside of inputs and lists too, add a line to `ID_ARGUMENTS`: which kinds it takes, in
   the state that lets the command succeed. Those of which only one may be given go into `ALTERNATIVES`. What is called
   `id`, `ids`, `…Id` or `…Ids` has type ID, or is in `NOT_IDS`.
3. A new kind of id needs a `Kind` and a maker in `matrix_world.py`, and a line in `NODE_READERS`.
4. Give a required argument whose default by type is not valid a line in `SAMPLES`.
5. A command that ends the caller's session, or changes their credentials, goes into `SPENDERS`.
6. Run the tests. An answer that is right but not the rule goes into the table that says so (`ACCEPTED`, `QUIET`,
   `INVALID`, `OWN_ONLY`, `TELLS_IDLE`), with the reason. If you cannot give one, the field has a hole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from graphql import Undefined

from tests.factories import Person
from tests.harness import matrix_world as worlds
from tests.harness.matrix_documents import Sample, SentFile
from tests.harness.matrix_world import MAKERS, Kind
from tests.harness.media_files import picture

Place = tuple[str, str]
"""A root field and the path of an argument, or an input type and its field."""

ID_ARGUMENTS: Final[Mapping[Place, tuple[Kind, ...]]] = {
    ("Query.node", "id"): tuple(MAKERS),
    ("Query.nodes", "ids"): tuple(MAKERS),
    ("Query.tool", "id"): (worlds.TOOL,),
    ("Query.jobs", "filter.toolId"): (worlds.TOOL,),
    ("Query.jobs", "filter.ownerId"): (worlds.USER,),
    ("Query.job", "id"): (worlds.JOB,),
    ("Query.jobRuns", "filter.jobId"): (worlds.JOB,),
    ("Query.jobRuns", "filter.toolId"): (worlds.TOOL,),
    ("Query.jobRun", "id"): (worlds.RUN, worlds.WAITING_RUN),
    ("Query.itemExports", "filter.runId"): (worlds.RUN,),
    ("Query.itemExport", "id"): (worlds.ITEM_EXPORT, worlds.WAITING_ITEM_EXPORT),
    ("Query.project", "id"): (worlds.PROJECT,),
    ("Query.deployments", "filter.projectId"): (worlds.PROJECT,),
    ("Query.analytics", "projectId"): (worlds.PROJECT,),
    ("Query.deployment", "id"): (worlds.DEPLOYMENT, worlds.WAITING_DEPLOYMENT),
    ("Query.mediaItem", "id"): (worlds.MEDIUM,),
    ("Query.scans", "filter.mediaId"): (worlds.MEDIUM,),
    ("Query.ocrJobs", "filter.mediaId"): (worlds.MEDIUM,),
    ("Query.ocrJob", "id"): (worlds.OCR_JOB, worlds.WAITING_OCR_JOB),
    ("Query.scan", "id"): (worlds.SCAN, worlds.WAITING_SCAN),
    ("Query.compareScans", "base"): (worlds.SCAN,),
    ("Query.compareScans", "head"): (worlds.SCAN,),
    ("Query.exportScan", "id"): (worlds.SCAN,),
    ("Query.webhookDeliveries", "filter.projectId"): (worlds.PROJECT,),
    ("Query.webhookDelivery", "id"): (worlds.DELIVERY,),
    ("Query.webhookEndpoints", "filter.projectId"): (worlds.PROJECT,),
    ("Query.webhookEndpoints", "filter.jobId"): (worlds.JOB,),
    ("Query.webhookEndpoint", "id"): (worlds.ENDPOINT,),
    ("Mutation.createWebhookEndpoint", "input.projectId"): (worlds.PROJECT,),
    ("Mutation.createWebhookEndpoint", "input.jobId"): (worlds.JOB,),
    ("Mutation.updateWebhookEndpoint", "input.id"): (worlds.ENDPOINT,),
    ("Mutation.rotateWebhookSecret", "input.id"): (worlds.ENDPOINT,),
    ("Mutation.deleteWebhookEndpoint", "input.id"): (worlds.ENDPOINT,),
    ("Mutation.testWebhookEndpoint", "input.id"): (worlds.ENDPOINT,),
    ("Mutation.redeliverWebhook", "input.dispatchId"): (worlds.DISPATCH,),
    ("Query.user", "id"): (worlds.USER,),
    ("Query.auditEvents", "filter.actorId"): (worlds.USER,),
    ("Query.auditEvents", "filter.targetId"): tuple(MAKERS),
    ("Mutation.unlinkIdentity", "input.id"): (worlds.IDENTITY,),
    ("Mutation.setUserRole", "input.id"): (worlds.SPARE_USER,),
    ("Mutation.setUserActive", "input.id"): (worlds.SPARE_USER,),
    ("Mutation.deleteUser", "input.id"): (worlds.SPARE_USER,),
    ("Mutation.resetTwoFactor", "input.userId"): (worlds.SPARE_USER,),
    ("Mutation.revokeSession", "input.id"): (worlds.SESSION,),
    ("Mutation.createAccessToken", "input.projectIds"): (worlds.PROJECT,),
    ("Mutation.revokeAccessToken", "input.id"): (worlds.ACCESS_TOKEN,),
    ("Mutation.updateTool", "input.id"): (worlds.TOOL,),
    ("Mutation.deleteTool", "input.id"): (worlds.TOOL,),
    ("Mutation.createJob", "input.toolId"): (worlds.TOOL,),
    ("Mutation.previewJob", "input.toolId"): (worlds.TOOL,),
    ("Mutation.previewJob", "input.jobId"): (worlds.JOB,),
    ("Mutation.updateJob", "input.id"): (worlds.JOB,),
    ("Mutation.deleteJob", "input.id"): (worlds.JOB,),
    ("Mutation.runJob", "input.jobId"): (worlds.JOB,),
    ("Mutation.setJobSchedule", "input.jobId"): (worlds.JOB,),
    ("Mutation.pauseJobSchedule", "input.jobId"): (worlds.SCHEDULED_JOB,),
    ("Mutation.resumeJobSchedule", "input.jobId"): (worlds.SCHEDULED_JOB,),
    ("Mutation.deleteJobSchedule", "input.jobId"): (worlds.SCHEDULED_JOB,),
    ("Mutation.cancelJobRun", "input.id"): (worlds.WAITING_RUN,),
    ("Mutation.retryJobRun", "input.id"): (worlds.RUN,),
    ("Mutation.resumeJobRun", "input.id"): (worlds.RUN,),
    ("Mutation.exportItems", "input.runId"): (worlds.RUN,),
    ("Mutation.cancelItemExport", "input.id"): (worlds.WAITING_ITEM_EXPORT,),
    ("Mutation.deleteItemExport", "input.id"): (worlds.ITEM_EXPORT,),
    ("Mutation.updateProject", "input.id"): (worlds.PROJECT,),
    ("Mutation.deleteProject", "input.id"): (worlds.PROJECT,),
    ("Mutation.setEnvironmentVariables", "input.projectId"): (worlds.PROJECT,),
    ("Mutation.createDeployHook", "input.projectId"): (worlds.PROJECT,),
    ("Mutation.deleteDeployHook", "input.id"): (worlds.DEPLOY_HOOK,),
    ("Mutation.createDeployment", "input.projectId"): (worlds.PROJECT,),
    ("Mutation.cancelDeployment", "input.id"): (worlds.WAITING_DEPLOYMENT,),
    ("Mutation.redeploy", "input.id"): (worlds.DEPLOYMENT,),
    ("Mutation.promoteDeployment", "input.id"): (worlds.DEPLOYMENT,),
    ("Mutation.deleteDeployment", "input.id"): (worlds.DEPLOYMENT,),
    ("Mutation.completeUpload", "input.id"): (worlds.MEDIUM,),
    ("Mutation.deleteMedia", "input.id"): (worlds.MEDIUM,),
    ("Mutation.submitScan", "input.mediaId"): (worlds.MEDIUM,),
    ("Mutation.enqueueOcr", "input.mediaId"): (worlds.MEDIUM,),
    ("Mutation.enqueueOcrBatch", "input.mediaIds"): (worlds.MEDIUM,),
    ("Mutation.cancelOcrJob", "input.id"): (worlds.WAITING_OCR_JOB,),
    ("Mutation.deleteOcrJob", "input.id"): (worlds.OCR_JOB,),
    ("Mutation.acceptCandidate", "input.id"): (worlds.CANDIDATE,),
    ("Mutation.acceptCandidate", "input.productId"): (worlds.PRODUCT,),
    ("Mutation.rejectCandidate", "input.id"): (worlds.CANDIDATE,),
    ("Mutation.reopenCandidate", "input.id"): (worlds.REJECTED_CANDIDATE,),
    ("Mutation.acceptCandidates", "input.ocrJobId"): (worlds.OCR_JOB,),
    ("Mutation.undoAcceptance", "input.acceptanceId"): (worlds.ACCEPTANCE,),
    ("Mutation.cancelScan", "input.id"): (worlds.WAITING_SCAN,),
    ("Mutation.deleteScan", "input.id"): (worlds.SCAN,),
    ("Mutation.triageRisk", "input.riskId"): (worlds.RISK,),
    ("Query.product", "id"): (worlds.PRODUCT,),
    ("Query.incident", "id"): (worlds.INCIDENT,),
    ("Mutation.updateIncident", "input.id"): (worlds.INCIDENT,),
    ("Mutation.updateProduct", "input.id"): (worlds.PRODUCT,),
    ("Mutation.deleteProduct", "input.id"): (worlds.PRODUCT,),
    ("Mutation.adjustStock", "input.id"): (worlds.PRODUCT,),
    ("Mutation.setStock", "input.id"): (worlds.PRODUCT,),
    ("Mutation.setProductMedia", "input.id"): (worlds.PRODUCT,),
    ("Mutation.setProductMedia", "input.items.mediaId"): (worlds.MEDIUM,),
    ("Query.property", "id"): (worlds.PROPERTY,),
    ("Query.properties", "filter.jobId"): (worlds.JOB,),
    ("Mutation.deleteProperty", "input.id"): (worlds.PROPERTY,),
    ("Mutation.replayDelivery", "input.id"): (worlds.DELIVERY,),
    ("Mutation.markNotificationsRead", "input.ids"): (worlds.NOTIFICATION,),
    ("Subscription.logs", "executionId"): (
        worlds.RUN,
        worlds.SCAN,
        worlds.OCR_JOB,
        worlds.ITEM_EXPORT,
        worlds.DEPLOYMENT,
    ),
    ("Subscription.execution", "id"): (
        worlds.SCAN,
        worlds.OCR_JOB,
        worlds.ITEM_EXPORT,
        worlds.RUN,
        worlds.WAITING_RUN,
        worlds.DEPLOYMENT,
        worlds.WAITING_DEPLOYMENT,
    ),
    ("Subscription.notifications", "after"): (worlds.NOTIFICATION,),
}
"""What each id argument takes."""

ALTERNATIVES: Final[Mapping[str, tuple[str, ...]]] = {
    "Mutation.previewJob": ("input.jobId", "input.toolId"),
}
"""Id arguments of which a field takes exactly one."""

NOT_IDS: Final[Mapping[str, str]] = {
    "AuditEventFilter.requestId": "a request, which is no object",
    "OcrJobFilter.batchId": "a batch, which is no object",
}
"""Arguments that are called like ids and name nothing of ours, and why."""

PUBLIC: Final[Mapping[str, str]] = {
    "Query.node": "shows what its caller may see, to nobody nothing",
    "Query.nodes": "as `node`",
    "Query.product": "the catalogue is for everybody",
    "Query.products": "the catalogue is for everybody",
    "Query.incident": "what everybody is told",
    "Query.statusPage": "what everybody is told",
    "Subscription.serviceStatus": "what everybody is told",
    "Query.signInProviders": "what the page for signing in shows",
    "Mutation.startOAuth": "the way in",
    "Mutation.completeOAuth": "the way in",
    "Mutation.register": "the way in",
    "Mutation.login": "the way in",
    "Mutation.refreshSession": "the refresh token proves the caller",
    "Mutation.logout": "the refresh token proves the caller; without one there is nothing to end",
    "Mutation.requestEmailVerification": "asked before one can sign in; answers the same to all",
    "Mutation.verifyEmail": "the link proves the caller",
    "Mutation.requestPasswordReset": "asked by those who cannot sign in; answers the same to all",
    "Mutation.resetPassword": "the link proves the caller",
}
"""Fields that anybody may ask, and why."""

SILENT: Final = frozenset({"Query.node", "Query.nodes"})
"""Fields that answer null for what is not to be seen; all others say NOT_FOUND."""

QUIET: Final[Mapping[Place, str]] = {
    ("Query.jobs", "filter.toolId"): "a condition: no job of mine has a tool that I cannot see",
    ("Query.jobRuns", "filter.jobId"): "a condition on my runs: none fits another's job",
    ("Query.jobRuns", "filter.toolId"): "a condition, as in `jobs`",
    ("Query.itemExports", "filter.runId"): "a condition on my exports: none is of another's run",
    ("Query.properties", "filter.jobId"): "a condition on my properties: none is of another's job",
    ("Query.deployments", "filter.projectId"): "a condition on my deployments: none fits another's project",
    ("Query.ocrJobs", "filter.mediaId"): "a condition on my documents: none is of another's medium",
    ("Query.scans", "filter.mediaId"): "a condition on my scans: none is of another's medium",
    ("Query.auditEvents", "filter.actorId"): "a condition on the events that concern me",
    ("Query.auditEvents", "filter.targetId"): "a condition on the events that concern me",
    ("Subscription.notifications", "after"): "a place in my own list, found by its time; nothing is looked up",
}
"""Arguments that take a foreign id without an error: as one of nothing, which the test compares."""

INVALID: Final[Mapping[Place, str]] = {
    ("Query.auditEvents", "filter.actorId"): "what is no id of a user is a wrong filter, whoever asks",
    ("Query.auditEvents", "filter.targetId"): "what is no id is a wrong filter, whoever asks",
}
"""Arguments that refuse malformed ids with VALIDATION_ERROR, which depends on the text alone."""

QUIET_FOR_ADMINISTRATORS: Final[Mapping[Place, str]] = {
    ("Query.jobs", "filter.ownerId"): "a condition: nobody's jobs are none",
}
"""Arguments that are quiet for those who may know everything anyway."""

OWN_ONLY: Final[Mapping[Place, str]] = {
    ("Mutation.createAccessToken", "input.projectIds"): "a token reaches its owner's projects (decision 0020)",
    ("Mutation.createWebhookEndpoint", "input.projectId"): "an endpoint is told of its maker's things (decision 0045)",
    ("Mutation.createWebhookEndpoint", "input.jobId"): "an endpoint is told of its maker's things (decision 0045)",
    ("Mutation.rotateWebhookSecret", "input.id"): "a secret is shown to its owner alone (decision 0045)",
    ("Mutation.submitScan", "input.mediaId"): "a scan is its maker's, and tells of what it read (decision 0031)",
}
"""Arguments where an administrator's rights end at what is their own, besides kinds that are personal."""

TELLS_IDLE: Final[Mapping[Place, str]] = {
    ("Mutation.createJob", "input.toolId"): "who knows the id of a tool is told that it was switched off",
    ("Mutation.previewJob", "input.toolId"): "as `createJob`",
}
"""Arguments that say of a hidden tool that it is there."""

_NO_GITHUB: Final = "no GitHub application is set up in tests"
_NO_FACTOR: Final = "the account has no second factor"
_NO_LINK: Final = "the sample is no link that was sent"
ACCEPTED: Final[Mapping[tuple[str, str], str]] = {
    ("Mutation.verifyEmail", "VALIDATION_ERROR"): _NO_LINK,
    ("Mutation.resetPassword", "VALIDATION_ERROR"): _NO_LINK,
    ("Query.detectFramework", "VALIDATION_ERROR"): "the sample leads to this machine, which is not fetched from",
    ("Query.githubRepositories", "CONFLICT"): "no account at GitHub is connected",
    ("Query.githubBranches", "CONFLICT"): "no account at GitHub is connected",
    ("Query.githubRepositories", "SERVICE_UNAVAILABLE"): _NO_GITHUB,
    ("Query.githubBranches", "SERVICE_UNAVAILABLE"): _NO_GITHUB,
    ("Mutation.connectGithub", "SERVICE_UNAVAILABLE"): _NO_GITHUB,
    ("Mutation.completeGithubConnection", "SERVICE_UNAVAILABLE"): _NO_GITHUB,
    ("Mutation.startOAuth", "SERVICE_UNAVAILABLE"): "no provider is set up in tests",
    ("Mutation.completeOAuth", "SERVICE_UNAVAILABLE"): "no provider is set up in tests",
    ("Mutation.completeOAuth", "CONFLICT"): "the sample is no code that a provider gave",
    ("Mutation.completeGithubConnection", "CONFLICT"): "the sample is no code that GitHub gave",
    ("Mutation.previewJob", "RATE_LIMIT_EXCEEDED"): "one preview of a person at a time",
    ("Mutation.resetTwoFactor", "CONFLICT"): _NO_FACTOR,
    ("Mutation.confirmTotp", "CONFLICT"): _NO_FACTOR,
    ("Mutation.disableTotp", "CONFLICT"): _NO_FACTOR,
    ("Mutation.renewRecoveryCodes", "CONFLICT"): _NO_FACTOR,
}
"""Codes that a caller who may ask a field is answered with all the same, and why."""

SPENDERS: Final[frozenset[str]] = frozenset(
    {
        "Mutation.logout",
        "Mutation.refreshSession",
        "Mutation.changePassword",
        "Mutation.revokeOtherSessions",
        "Mutation.updateProfile",
        "Mutation.enrollTotp",
        "Mutation.confirmTotp",
        "Mutation.deleteAccount",
    }
)
"""Commands after which the caller is not who they were: tried by somebody made for it."""


def _new(text: str) -> Callable[[Person], str]:
    """A text that nothing has yet."""
    return lambda _: f"{text}-{secrets.token_hex(5)}"


APP: Final = "https://app.example"
"""What the tests have in ALLOWED_ORIGINS."""

NEW_PASSWORD: Final = "correct horse battery staple 7"
SAMPLES: Final[Mapping[Place, Any]] = {
    ("RegisterInput", "username"): _new("user"),
    ("RegisterInput", "email"): lambda _: f"{secrets.token_hex(6)}@example.com",
    ("RegisterInput", "password"): NEW_PASSWORD,
    ("LoginInput", "identifier"): lambda person: person.username,
    ("LoginInput", "password"): lambda person: person.password,
    ("Mutation.refreshSession", "input"): lambda person: {"refreshToken": person.refresh_token},
    ("Mutation.logout", "input"): lambda person: {"refreshToken": person.refresh_token},
    ("RequestEmailVerificationInput", "email"): lambda person: person.email,
    ("RequestPasswordResetInput", "email"): lambda person: person.email,
    ("ResetPasswordInput", "password"): NEW_PASSWORD,
    ("ChangePasswordInput", "currentPassword"): lambda person: person.password,
    ("ChangePasswordInput", "newPassword"): NEW_PASSWORD,
    ("EnrollTotpInput", "password"): lambda person: person.password,
    ("DisableTotpInput", "password"): lambda person: person.password,
    ("RenewRecoveryCodesInput", "password"): lambda person: person.password,
    ("UnlinkIdentityInput", "password"): lambda person: person.password,
    ("DeleteAccountInput", "password"): lambda person: person.password,
    ("UpdateProfileInput", "name"): "New name",
    ("CreateToolInput", "slug"): _new("tool"),
    ("CreateToolInput", "spider"): "catalogue",
    ("CreateJobInput", "startUrls"): ["https://a.example/"],
    ("CreateJobInput", "config"): {"fields": [{"name": "title", "css": "h1"}]},
    ("PreviewJobInput", "startUrls"): ["https://a.example/"],
    ("PreviewJobInput", "config"): {"fields": [{"name": "title", "css": "h1"}]},
    ("UpdateJobInput", "name"): "New name",
    ("SetJobScheduleInput", "cronExpression"): "0 6 * * *",
    ("Query.previewSchedule", "cronExpression"): "0 6 * * *",
    ("UpdateToolInput", "name"): "New name",
    ("AdjustStockInput", "by"): "1",
    ("SetStockInput", "stock"): "7",
    ("UpdateProductInput", "description"): _new("New"),
    ("CreateProjectInput", "slug"): _new("site"),
    ("CreateProjectInput", "repository"): "https://git.example.com/team/site.git",
    ("UpdateProjectInput", "name"): "New name",
    ("SetEnvironmentVariablesInput", "variables"): [{"name": "ANSWER", "value": "42"}],
    ("UpdatePreferencesInput", "theme"): "DARK",
    # An address, because a name would be looked up.
    ("CreateWebhookEndpointInput", "url"): "https://93.184.215.14/hook",
    ("UpdateWebhookEndpointInput", "description"): "New",
    ("CreateUploadInput", "contentType"): "image/png",
    ("CreateUploadInput", "sha256"): "0" * 64,
    ("UploadMediaInput", "file"): SentFile("sample.png", picture(), "image/png"),
    ("ImportProductsInput", "file"): SentFile("sample.csv", b"name,price,currency\nSample,1,EUR\n", "text/csv"),
    ("ConnectGithubInput", "redirectTo"): f"{APP}/back",
    ("StartOAuthInput", "redirectTo"): f"{APP}/back",
    ("CreateIncidentInput", "services"): ["API"],
    ("UpdateIncidentInput", "title"): "New title",
    ("Query.detectFramework", "repository"): "https://127.0.0.1/team/site.git",
    ("Query.githubBranches", "repository"): "team/site",
    ("Query.documents", "search"): "text",
}
"""Values of arguments for a person: those that must be valid, and optional ones without which nothing is asked."""

HIDDEN: Final[Mapping[Kind, Kind]] = {worlds.TOOL: worlds.IDLE_TOOL, worlds.PRODUCT: worlds.IDLE_PRODUCT}
"""Kinds that all share, and the state in which only administrators see one."""

MEMBERS: Final = frozenset({"owner", "owner's READ token", "owner's WRITE token"})
ADMINS: Final = frozenset({"administrator", "administrator's ADMIN token"})
EVERYBODY: Final = MEMBERS | ADMINS | {"other user", "administrator's READ token"}
PROJECTS_TOKEN: Final = "token for the project"

NODE_READERS: Final[Mapping[Kind, frozenset[str]]] = {
    worlds.USER: MEMBERS | ADMINS,
    worlds.SPARE_USER: ADMINS,
    worlds.SESSION: frozenset({"owner"}),
    worlds.PRODUCT: EVERYBODY | {PROJECTS_TOKEN, "token for another project", "nobody"},
    worlds.IDLE_PRODUCT: ADMINS,
    worlds.INCIDENT: EVERYBODY | {PROJECTS_TOKEN, "token for another project", "nobody"},
    worlds.TOOL: EVERYBODY,
    worlds.IDLE_TOOL: ADMINS,
    worlds.JOB: MEMBERS | ADMINS,
    worlds.SCHEDULED_JOB: MEMBERS | ADMINS,
    worlds.RUN: MEMBERS | ADMINS,
    worlds.WAITING_RUN: MEMBERS | ADMINS,
    worlds.PROJECT: MEMBERS | ADMINS | {PROJECTS_TOKEN},
    worlds.DEPLOYMENT: MEMBERS | ADMINS,
    worlds.WAITING_DEPLOYMENT: MEMBERS | ADMINS,
    worlds.SCAN: MEMBERS | ADMINS,
    worlds.WAITING_SCAN: MEMBERS | ADMINS,
    worlds.OCR_JOB: MEMBERS | ADMINS,
    worlds.WAITING_OCR_JOB: MEMBERS | ADMINS,
    worlds.ITEM_EXPORT: MEMBERS | ADMINS,
    worlds.WAITING_ITEM_EXPORT: MEMBERS | ADMINS,
    worlds.DOCUMENT_PAGE: MEMBERS | ADMINS,
    worlds.CANDIDATE: MEMBERS | ADMINS,
    worlds.REJECTED_CANDIDATE: MEMBERS | ADMINS,
    worlds.ACCEPTANCE: frozenset(),
    worlds.RISK: frozenset(),
    worlds.MEDIUM: MEMBERS | ADMINS,
    worlds.DELIVERY: MEMBERS | ADMINS,
    worlds.ENDPOINT: MEMBERS | ADMINS,
    worlds.DISPATCH: MEMBERS | ADMINS,
    worlds.NOTIFICATION: frozenset({"owner"}),
    worlds.PROPERTY: MEMBERS | ADMINS,
    worlds.ITEM: frozenset(),
    worlds.FILE: frozenset(),
    worlds.AUDIT_EVENT: ADMINS | {"owner"},
    worlds.DEPLOY_HOOK: frozenset(),
    worlds.VARIABLE: frozenset(),
    worlds.IDENTITY: frozenset({"owner"}),
    worlds.ACCESS_TOKEN: frozenset(),
}
"""Who of the callers of the test gets the owner's object of a kind from `node`; nobody where it is no node."""


def sample_for(person: Person) -> Sample:
    """The samples of a person."""

    def sample(owner: str, name: str) -> Any:
        value = SAMPLES.get((owner, name), Undefined)
        return value(person) if callable(value) else value

    return sample
