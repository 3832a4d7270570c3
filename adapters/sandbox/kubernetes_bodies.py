"""What a cluster is asked for a build: the Job with all of its limits, and the Secret with the phases' variables.

Invariant: no value of a variable is in the Job; the pod has no privilege, no token of the cluster, and nothing writable
but sized folders. Every `$` in a command is doubled, because Kubernetes replaces `$(NAME)` in it.

Containers in their order: `source` waits for the checkout, one for each phase, `output` waits until that is fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from adapters.sandbox.containers import HOME, SOURCE, TEMPORARY, USER, WORKSPACE
from adapters.sandbox.contract import BuildLimits, BuildSpec
from adapters.sandbox.kubernetes_api import Json

APP_LABEL: Final = "app.kubernetes.io/name"
APP: Final = "switchyard-build"
JOB_LABEL: Final = "switchyard-job"
ATTEMPT_LABEL: Final = "switchyard-attempt"
BUILD_ANNOTATION: Final = "switchyard-build"
SOURCE_CONTAINER, OUTPUT_CONTAINER = "source", "output"
KEEP_FINISHED_SECONDS: Final = 300
CPU_REQUEST, CPU_LIMIT = "250m", "2"
LOG_BYTES: Final = (
    128 * 2**20
)  # logs count as ephemeral storage: two containers' worth of the kubelet's usual 5 × 10 MiB
RECEIVED: Final = f"{WORKSPACE}/.received"
NO_FOLDER_CODE: Final = 44

WAIT_FOR_SOURCE: Final = f"until [ -e {RECEIVED} ]; do sleep 0.2; done"
WAIT_FOR_END: Final = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"
# The length is an argument because the stream has no end (kubernetes_api); a cut one makes tar fail, and no mark.
RECEIVE: Final = f'rm -rf {SOURCE} && mkdir -p {HOME} && head -c "$0" | tar -xf - -C {WORKSPACE} && touch {RECEIVED}'
SEND: Final = f'[ -d "$0" ] && [ ! -L "$0" ] || exit {NO_FOLDER_CODE}; cd "$0" && exec tar -cf - .'
# Sizes in blocks of 512 bytes, as POSIX has it for sh; a limit that is lower already stays.
LIMITED: Final = (
    '(ulimit -f "$1") 2>/dev/null && ulimit -f "$1"; ulimit -c 0; '
    '(ulimit -n "$2") 2>/dev/null && ulimit -n "$2"; exec /bin/sh -c "$0"'
)


def job_name(build_id: str) -> str:
    """The name of a build's Job, Secret and containers' labels: the id where a DNS label can hold it, else its hash."""
    name = f"{APP}-{build_id}"
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= 63:
        return name
    return f"{APP}-{hashlib.sha256(build_id.encode()).hexdigest()[:40]}"


def phase_container(number: int) -> str:
    """The container of a phase, counted from 0."""
    return f"phase-{number}"


def job(
    spec: BuildSpec,
    variables: Sequence[Mapping[str, str]],
    *,
    image: str,
    attempt: str,
    directory: str,
    runtime_class: str | None,
    active_seconds: int,
) -> Json:
    """The Job of a build; `variables` are those of each phase, of which only the names go in."""
    name = job_name(spec.build_id)
    labels = {APP_LABEL: APP, JOB_LABEL: name, ATTEMPT_LABEL: attempt}
    phases = [
        _container(
            phase_container(number),
            ["/bin/sh", "-c", LIMITED, phase.command, str(spec.limits.file_bytes // 512), str(spec.limits.open_files)],
            image,
            spec.limits,
            directory=directory,
            environment=[
                {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": secret_key(number, place)}}}
                for place, variable in enumerate(variables[number])
            ],
        )
        for number, phase in enumerate(spec.phases)
    ]
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostUsers": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [
            _container(SOURCE_CONTAINER, ["/bin/sh", "-c", WAIT_FOR_SOURCE], image, spec.limits),
            *phases,
        ],
        "containers": [_container(OUTPUT_CONTAINER, ["/bin/sh", "-c", WAIT_FOR_END], image, spec.limits)],
        "volumes": [
            {"name": "workspace", "emptyDir": {"sizeLimit": str(spec.limits.disk_bytes)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": str(spec.limits.disk_bytes)}},
        ],
    }
    if runtime_class is not None:
        pod["runtimeClassName"] = runtime_class
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {BUILD_ANNOTATION: spec.build_id}},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": active_seconds,
            "ttlSecondsAfterFinished": KEEP_FINISHED_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def secret(build_id: str, variables: Sequence[Mapping[str, str]], *, job_uid: str) -> Json:
    """The variables of all phases, owned by the Job, with which the cluster deletes them."""
    name = job_name(build_id)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {"name": name, "labels": {APP_LABEL: APP, JOB_LABEL: name}, "ownerReferences": [owner]},
        "stringData": {
            secret_key(number, place): value
            for number, phase in enumerate(variables)
            for place, value in enumerate(phase.values())
        },
    }


def secret_key(number: int, place: int) -> str:
    """Where the value of a phase's variable is in the Secret; names of variables are no keys of every kind."""
    return f"phase-{number}.{place}"


def _container(
    name: str,
    command: Sequence[str],
    image: str,
    limits: BuildLimits,
    *,
    directory: str = WORKSPACE,
    environment: Sequence[Json] = (),
) -> Json:
    storage = str(limits.disk_bytes + LOG_BYTES)
    return {
        "name": name,
        "image": image,
        "command": [word.replace("$", "$$") for word in command],
        "workingDir": directory,
        "env": list(environment),
        "resources": {
            "requests": {"cpu": CPU_REQUEST, "memory": str(limits.memory_bytes), "ephemeral-storage": storage},
            "limits": {"cpu": CPU_LIMIT, "memory": str(limits.memory_bytes), "ephemeral-storage": storage},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "workspace", "mountPath": WORKSPACE}, {"name": "tmp", "mountPath": TEMPORARY}],
    }
