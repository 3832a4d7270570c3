"""Every mutation says what it leaves in the audit trail, and the code says the same.

The actions are read out of the code: a call that ends in an audit event names its action as a literal or a constant. So
declarations that nothing writes are found, and names that nothing declares. Also: what details may never hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from schema import build_schema
from tests.architecture.test_imports import our_modules, relative, syntax_tree

WRITES: dict[str, set[str]] = {
    "acceptCandidate": {"acceptCandidate", "createProduct", "updateProduct"},
    "acceptCandidates": {"acceptCandidates", "createProduct", "updateProduct"},
    "adjustStock": {"adjustStock"},
    "cancelDeployment": {"cancelDeployment"},
    "cancelItemExport": {"cancelItemExport"},
    "cancelJobRun": {"cancelJobRun"},
    "cancelOcrJob": {"cancelOcrJob"},
    "cancelScan": {"cancelScan"},
    "changePassword": {"changePassword"},
    "completeGithubConnection": {"connectGithub"},
    "completeOAuth": {"disownAccount", "linkIdentity", "login", "register"},
    "completeUpload": {"completeUpload"},
    "confirmTotp": {"confirmTotp"},
    "createAccessToken": {"createAccessToken"},
    "createDeployHook": {"createDeployHook"},
    "createDeployment": {"createDeployment"},
    "createIncident": {"createIncident"},
    "createJob": {"createJob"},
    "createProduct": {"createProduct"},
    "createProject": {"createProject"},
    "createTool": {"createTool"},
    "createUpload": {"createUpload"},
    "createWebhookEndpoint": {"createWebhookEndpoint"},
    "deleteAccount": {"deleteAccount"},
    "deleteDeployHook": {"deleteDeployHook"},
    "deleteDeployment": {"deleteDeployment"},
    "deleteItemExport": {"deleteItemExport"},
    "deleteJob": {"deleteJob"},
    "deleteJobSchedule": {"deleteJobSchedule"},
    "deleteOcrJob": {"deleteOcrJob"},
    "deleteMedia": {"deleteMedia"},
    "deleteProduct": {"deleteProduct"},
    "deleteProperty": {"deleteProperty"},
    "deleteProject": {"deleteProject"},
    "deleteScan": {"deleteScan"},
    "deleteTool": {"deleteTool"},
    "deleteUser": {"deleteUser"},
    "deleteWebhookEndpoint": {"deleteWebhookEndpoint"},
    "disableTotp": {"disableTotp"},
    "disconnectGithub": {"disconnectGithub"},
    "enqueueOcr": {"enqueueOcr"},
    "enqueueOcrBatch": {"enqueueOcrBatch"},
    "enrollTotp": {"enrollTotp"},
    "exportItems": {"exportItems"},
    "exportProducts": {"exportProducts"},
    "importProducts": {"importProducts"},
    "login": {"login"},
    "logout": {"logout"},
    "markNotificationsRead": {"markNotificationsRead"},
    "pauseJobSchedule": {"pauseJobSchedule"},
    "promoteDeployment": {"promoteDeployment"},
    "redeliverWebhook": {"redeliverWebhook"},
    "redeploy": {"redeploy"},
    "refreshSession": {"refreshSession"},
    "register": {"register"},
    "rejectCandidate": {"rejectCandidate"},
    "renewRecoveryCodes": {"renewRecoveryCodes"},
    "reopenCandidate": {"reopenCandidate"},
    "replayDelivery": {"replayDelivery"},
    "requestEmailVerification": {"requestEmailVerification"},
    "requestPasswordReset": {"requestPasswordReset"},
    "resetPassword": {"resetPassword"},
    "resetTwoFactor": {"resetTwoFactor"},
    "resumeJobSchedule": {"resumeJobSchedule"},
    "resumeJobRun": {"resumeJobRun"},
    "retryJobRun": {"retryJobRun"},
    "revokeAccessToken": {"revokeAccessToken"},
    "revokeOtherSessions": {"revokeOtherSessions"},
    "revokeSession": {"revokeSession"},
    "rotateWebhookSecret": {"rotateWebhookSecret"},
    "runJob": {"runJob"},
    "setEnvironmentVariables": {"setEnvironmentVariables"},
    "setJobSchedule": {"setJobSchedule"},
    "setProductMedia": {"setProductMedia"},
    "setStock": {"setStock"},
    "setUserActive": {"setUserActive"},
    "setUserRole": {"setUserRole"},
    "submitScan": {"submitScan"},
    "testWebhookEndpoint": {"testWebhookEndpoint"},
    "triageRisk": {"triageRisk"},
    "undoAcceptance": {"deleteProduct", "undoAcceptance", "updateProduct"},
    "unlinkIdentity": {"unlinkIdentity"},
    "updateIncident": {"updateIncident"},
    "updateJob": {"updateJob"},
    "updatePreferences": {"updatePreferences"},
    "updateProduct": {"updateProduct"},
    "updateProfile": {"updateProfile"},
    "updateProject": {"updateProject"},
    "updateTool": {"updateTool"},
    "updateWebhookEndpoint": {"updateWebhookEndpoint"},
    "uploadMedia": {"completeUpload", "uploadMedia"},
    "verifyEmail": {"verifyEmail"},
}
"""Of `refreshSession` only a replaced token that is shown again is written: a refresh that worked changes a counter."""

WRITES_NOTHING = {
    "previewJob": "keeps nothing at all; a test holds every table against it",
    "connectGithub": "says where to go; what comes of it is written by completeGithubConnection",
    "startOAuth": "says where to go; what comes of it is written by completeOAuth",
}
WITHOUT_MUTATION = {
    "createAdmin",
    "createDemo",
    "deleteDemo",
    "deployByHook",
    "deployByPullRequest",
    "deployByPush",
    "installTool",
    "pauseBySystem",
    "rateLimit",
    "rotateKeys",
    "runBySchedule",
}
"""What the command line, other services and refusals leave."""

_RECORDING = re.compile(r"_?(record|note|ask|end|cancel|prove_again|check_password|insert_for_system|start|once)\w*")
_SECRET_NAMES = re.compile(r"(?!had).*(password|secret|token(?!s)|e?mail|address|code(?!Refused))", re.IGNORECASE)


def test_every_mutation_says_what_it_writes() -> None:
    mutation = build_schema()._schema.mutation_type
    assert mutation is not None
    declared = [*WRITES, *WRITES_NOTHING]
    assert len(declared) == len(set(declared))
    assert set(mutation.fields) ^ set(declared) == set()


def test_what_is_declared_is_written() -> None:
    written = set(actions())
    assert {action for declared in WRITES.values() for action in declared} - written == set()
    assert WITHOUT_MUTATION - written == set()


def test_what_is_written_is_declared() -> None:
    declared = {action for actions_ in WRITES.values() for action in actions_} | WITHOUT_MUTATION
    assert set(recorded_literally()) - declared == set()


def test_details_have_no_secrets() -> None:
    named = {
        f"{relative(path)}:{key.lineno} {key.value}"
        for path in our_modules()
        for call in calls(syntax_tree(path))
        if name_of(call).endswith("record")
        for key in details_of(call)
        if isinstance(key.value, str) and _SECRET_NAMES.match(key.value)
    }
    assert named == set()


@pytest.mark.parametrize(
    "source", ['await AuditEvent.record(a, "x", details={"newEmail": 1})', '_record(a, token="x")']
)
def test_the_check_of_details_finds_what_it_looks_for(source: str) -> None:
    [call] = [call for call in calls(ast.parse(source)) if name_of(call).endswith("record")]
    assert [key for key in details_of(call) if _SECRET_NAMES.match(str(key.value))]


# -- reading the code


def actions() -> Iterator[str]:
    """Names that stand where an action is handed to what records it, in a literal or in a constant of its module."""
    for path in our_modules():
        if relative(path).split("/")[0] not in ("resolvers", "models", "tasks", "cli.py"):
            continue
        tree = syntax_tree(path)
        constants = constants_of(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                    if parameter.arg == "action" and default is not None:
                        yield from literals(default, constants)
        for call in calls(tree):
            for keyword in call.keywords:
                if keyword.arg == "action":
                    yield from literals(keyword.value, constants)
            if _RECORDING.fullmatch(name_of(call)):
                for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                    yield from literals(argument, constants)


def recorded_literally() -> Iterator[str]:
    """The actions of all calls of `AuditEvent.record` and of functions that are named after it."""
    for path in our_modules():
        tree = syntax_tree(path)
        constants = constants_of(tree)
        for call in calls(tree):
            if name_of(call) == "insert_for_system" or name_of(call) in ("record", "_record"):
                action = call.args[1] if len(call.args) > 1 else None
                if action is not None and (isinstance(call.func, ast.Name) or "AuditEvent" in ast.unparse(call.func)):
                    yield from literals(action, constants)


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def literals(node: ast.AST, constants: dict[str, list[str]]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name | ast.Attribute):
            yield from constants.get(part.id if isinstance(part, ast.Name) else part.attr, [])


def constants_of(tree: ast.Module) -> dict[str, list[str]]:
    """Strings in the constants of a module, and the one that another module lends its name to."""
    found: dict[str, list[str]] = {"INSTALLED": ["installTool"]}
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and isinstance(node, ast.AnnAssign) and node.value is not None:
            found[target.id] = [
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
    return found


def details_of(call: ast.Call) -> Iterator[ast.Constant]:
    """The names of details that a call gives: in a dictionary, or as arguments of a function that gathers them."""
    for keyword in call.keywords:
        if keyword.arg == "details":
            yield from (
                key
                for part in ast.walk(keyword.value)
                if isinstance(part, ast.Dict)
                for key in part.keys
                if isinstance(key, ast.Constant)
            )
        elif keyword.arg is not None:
            yield ast.copy_location(ast.Constant(keyword.arg), keyword.value)
