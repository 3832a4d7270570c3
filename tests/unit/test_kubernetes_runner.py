"""The Kubernetes runner against a server that checks every request: how builds end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import datetime
import io
import ipaddress
import json
import ssl
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.processes import TreeStillAlive
from adapters.sandbox import kubernetes, kubernetes_build
from adapters.sandbox.contract import Network, PhaseEnd, RunnerUnavailable
from adapters.sandbox.kubernetes import KubernetesRunner
from adapters.sandbox.kubernetes_api import ClusterError
from adapters.sandbox.kubernetes_bodies import job_name
from adapters.sandbox.kubernetes_logs import LogPlace
from settings import Settings
from tests.container_servers import (
    CUT,
    HANG,
    OOM,
    SECRET,
    TOKEN,
    FakeCluster,
    Listener,
    PodPlay,
    Trees,
    folder_archive,
    phase,
    spec_of,
)
from tests.harness.waiting import eventually
from tests.storage_servers import make_settings

NAME = job_name("dep_1")
OUTPUT = folder_archive(".", {"index.html": b"<h1>", "a/b.js": b"1"})


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with FakeCluster().listening() as cluster:
        yield cluster


def settings_of(cluster: FakeCluster, folder: Path, **values: Any) -> Settings:
    (folder / "token").write_text(f"{TOKEN}\n")
    here = {"kubernetes_url": cluster.url, "kubernetes_token_file": folder / "token", "kubernetes_ca_file": None}
    return make_settings(folder, **{**here, "build_proxy_url": "http://proxy:3128", **values})


def runner_of(cluster: FakeCluster, folder: Path, **values: Any) -> KubernetesRunner:
    return KubernetesRunner(settings_of(cluster, folder, **values), poll_seconds=0.02)


def log(*lines: str, second: int = 0) -> bytes:
    return b"".join(f"2026-01-01T00:00:{second:02}.{number:09}Z {line}\n".encode() for number, line in enumerate(lines))


async def test_two_phases_run_and_the_output_comes_back(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays = {"phase-0": PodPlay(log("added 3 packages")), "phase-1": PodPlay(log("built", "done"))}
    cluster.output = [OUTPUT]
    listener = Listener()
    spec = spec_of(tmp_path, phase("install", network=Network.EGRESS), phase("build"))

    result = await runner_of(cluster, tmp_path).run(spec, listener, Trees())

    assert [(exit.phase, exit.end, exit.exit_code) for exit in result.exits] == [
        ("install", PhaseEnd.EXITED, 0),
        ("build", PhaseEnd.EXITED, 0),
    ]
    assert listener.events == ["started install", "ended install EXITED", "started build", "ended build EXITED"]
    assert listener.text[False] == b"added 3 packages\nbuilt\ndone\n"
    assert result.output is not None
    assert (result.output / "index.html").read_bytes() == b"<h1>"
    assert (result.output / "a/b.js").read_bytes() == b"1"
    assert cluster.last_pod is not None
    with tarfile.open(fileobj=io.BytesIO(cluster.last_pod.received)) as sent:
        assert "source/site/index.js" in sent.getnames()
    assert not cluster.jobs
    assert not cluster.pods
    assert not cluster.secrets


async def test_the_pod_is_confined_and_holds_no_secret(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://worker:password@db")
    trees = Trees()
    spec = spec_of(tmp_path, phase("build", environment={"API_KEY": SECRET}))

    await runner_of(cluster, tmp_path, kubernetes_runtime_class="gvisor").run(spec, Listener(), trees)

    assert cluster.last_pod is not None
    job, pod = cluster.last_pod.job, cluster.last_pod.spec
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert 0 < job["spec"]["activeDeadlineSeconds"] <= 120
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["hostUsers"] is False
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [container["name"] for container in containers] == ["source", "phase-0", "output"]
    for container in containers:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    build = containers[1]
    assert build["workingDir"] == "/workspace/source/site"
    keys = {variable["name"]: variable["valueFrom"]["secretKeyRef"]["key"] for variable in build["env"]}
    assert cluster.last_secret["stringData"][keys["API_KEY"]] == SECRET
    assert not {"DATABASE_URL", "HTTP_PROXY"} & keys.keys()
    assert SECRET not in json.dumps(job)
    assert not any(SECRET in request or TOKEN in request for request in cluster.requests)
    assert not any(SECRET in argument for argument in trees.commands[0])


async def test_dollars_of_a_command_reach_the_shell(cluster: FakeCluster, tmp_path: Path) -> None:
    await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("$(CI) $$ $HOME")), Listener(), Trees())

    assert cluster.last_pod is not None
    command = cluster.last_pod.spec["initContainers"][1]["command"]
    assert command[3] == "run $$(CI) $$$$ $$HOME"


async def test_without_a_proxy_the_log_says_so_once(cluster: FakeCluster, tmp_path: Path) -> None:
    listener = Listener()
    phases = [phase("install", network=Network.EGRESS), phase("build", network=Network.EGRESS)]

    await runner_of(cluster, tmp_path, build_proxy_url=None).run(spec_of(tmp_path, *phases), listener, Trees())

    assert listener.text[True].count(b"no network") == 1


async def test_only_phases_with_network_know_the_proxy(cluster: FakeCluster, tmp_path: Path) -> None:
    phases = [phase("install", network=Network.EGRESS), phase("build")]

    await runner_of(cluster, tmp_path).run(spec_of(tmp_path, *phases), Listener(), Trees())

    assert cluster.last_pod is not None
    names = [
        {variable["name"] for variable in container["env"]} for container in cluster.last_pod.spec["initContainers"][1:]
    ]
    assert "HTTPS_PROXY" in names[0]
    assert "HTTPS_PROXY" not in names[1]


async def test_a_failing_phase_is_the_last(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("no such package"), end=7)
    listener = Listener()

    result = await runner_of(cluster, tmp_path).run(
        spec_of(tmp_path, phase("install"), phase("build")), listener, Trees()
    )

    assert [(exit.end, exit.exit_code) for exit in result.exits] == [(PhaseEnd.EXITED, 7)]
    assert result.output is None
    assert listener.text[False] == b"no such package\n"
    assert not cluster.pods


async def test_a_phase_that_takes_too_long_is_deleted(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("working"), end=HANG)
    listener = Listener()

    result = await runner_of(cluster, tmp_path).run(
        spec_of(tmp_path, phase("build", timeout_seconds=0.3)), listener, Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.TIMED_OUT]
    assert listener.text[False] == b"working\n"
    assert not cluster.pods


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (OOM, PhaseEnd.OUT_OF_MEMORY),
        ('evicted: Usage of EmptyDir volume "workspace" exceeds the limit "10000000". ', PhaseEnd.DISK_FULL),
        ("evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ", PhaseEnd.DISK_FULL),
    ],
)
async def test_the_cluster_says_what_ran_out(
    cluster: FakeCluster, tmp_path: Path, end: str, expected: PhaseEnd
) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=end)
    listener = Listener()

    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())

    assert [exit.end for exit in result.exits] == [expected]
    assert listener.events == ["started build", f"ended build {expected}"]
    assert not cluster.pods


async def test_an_eviction_for_the_nodes_needs_is_not_the_builds_fault(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end="evicted: The node was low on resource: memory.")

    with pytest.raises(RunnerUnavailable, match="low on resource"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())


async def test_the_deadline_of_the_job_is_a_timeout(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    listener = Listener()
    running = asyncio.create_task(
        runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())
    )
    await eventually(listener.heard.is_set, 10)
    cluster.jobs[NAME]["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
    cluster.end_pods(NAME)

    result = await running

    assert [exit.end for exit in result.exits] == [PhaseEnd.TIMED_OUT]


async def test_a_pod_that_somebody_deletes_is_no_result(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    listener = Listener()
    running = asyncio.create_task(
        runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())
    )
    await eventually(listener.heard.is_set, 10)
    cluster.end_pods(NAME)

    with pytest.raises(RunnerUnavailable, match="deleted"):
        await running


async def test_a_listener_that_stops_ends_the_build(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("too much"), end=HANG)

    result = await runner_of(cluster, tmp_path).run(
        spec_of(tmp_path, phase("build"), phase("next")), Listener(stop_at=b"too much"), Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.STOPPED]
    assert not cluster.pods


async def test_cancelling_returns_only_once_the_pods_are_gone(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    cluster.keeps_pods = True
    listener = Listener()
    running = asyncio.create_task(
        runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())
    )
    await eventually(listener.heard.is_set, 10)

    running.cancel()
    await eventually(lambda: not cluster.jobs)
    looks = len(cluster.asked("GET .*/pods[?]"))
    await eventually(lambda: len(cluster.asked("GET .*/pods[?]")) > looks + 3)
    assert not running.done()
    cluster.pods.clear()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_pods_that_do_not_end_are_said(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "REMOVE_SECONDS", 0.2)
    cluster.keeps_pods = True

    trees = Trees()

    with pytest.raises(TreeStillAlive, match="do not end"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), trees)

    assert trees.has_strays


async def test_a_worker_that_loses_its_hold_removes_the_job(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    listener, trees = Listener(), Trees()
    running = asyncio.create_task(runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, trees))
    await eventually(listener.heard.is_set, 10)

    await trees.trees[0].kill()

    with pytest.raises(RunnerUnavailable, match="hold"):
        await running
    assert not cluster.pods


async def test_the_deadline_moves_while_the_worker_lives(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "RENEW_SECONDS", 0.05)
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    cluster.faults["^PATCH"] = [500, CUT]  # passes over
    running = asyncio.create_task(
        runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    )
    await eventually(lambda: len(cluster.deadlines) >= 3, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert all(90 <= deadline <= 100 for deadline in cluster.deadlines)


async def test_a_deadline_that_cannot_be_moved_ends_the_build(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(kubernetes, "LEASE_SECONDS", 0.2)
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    cluster.faults["^PATCH"] = [500] * 100

    with pytest.raises(RunnerUnavailable, match="500"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())


async def test_a_name_that_is_taken_is_an_earlier_attempts(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.jobs[NAME] = {"metadata": {"name": NAME, "uid": "uid-earlier", "labels": {}}}

    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.exits[-1].is_success
    assert not cluster.jobs


async def test_a_later_attempts_job_is_left_alone(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.plays["phase-0"] = PodPlay(log("x"), end=HANG)
    listener = Listener()
    running = asyncio.create_task(
        runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())
    )
    await eventually(listener.heard.is_set, 10)
    cluster.end_pods(NAME)
    cluster.jobs[NAME] = {"metadata": {"name": NAME, "uid": "uid-later", "labels": {"switchyard-attempt": "later"}}}

    running.cancel()
    with pytest.raises((asyncio.CancelledError, RunnerUnavailable)):
        await running

    assert cluster.jobs[NAME]["metadata"]["uid"] == "uid-later"


@pytest.mark.parametrize("fault", [500, CUT])
@pytest.mark.parametrize("call", ["POST .*/jobs", "POST .*/secrets"])
async def test_a_server_that_fails_at_any_step_leaves_nothing(
    cluster: FakeCluster, tmp_path: Path, call: str, fault: int | str
) -> None:
    cluster.faults[call] = [fault]

    with pytest.raises(RunnerUnavailable):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert not cluster.jobs
    assert not cluster.pods


@pytest.mark.parametrize("faults", [[CUT], [1], [CUT, 2]])
async def test_a_source_that_was_cut_is_sent_again(
    cluster: FakeCluster, tmp_path: Path, faults: list[int | str]
) -> None:
    cluster.source_faults = faults

    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.exits[-1].is_success


async def test_a_source_that_never_arrives_starts_no_phase(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.source_faults = [CUT] * 3
    listener = Listener()

    with pytest.raises(RunnerUnavailable, match="source"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())

    assert not listener.events
    assert not cluster.pods


@pytest.mark.parametrize("broken", [CUT, OUTPUT[:700], 2])
async def test_an_output_that_was_cut_is_fetched_again(
    cluster: FakeCluster, tmp_path: Path, broken: bytes | int | str
) -> None:
    cluster.output = [broken, OUTPUT]

    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.output is not None
    assert (result.output / "index.html").read_bytes() == b"<h1>"


async def test_an_output_that_never_arrives_is_no_success(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.output = [CUT, CUT, CUT]

    with pytest.raises(RunnerUnavailable, match="output"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert not (tmp_path / "checkout.output").exists()


async def test_no_folder_of_that_name_is_no_output(cluster: FakeCluster, tmp_path: Path) -> None:
    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.exits[-1].is_success
    assert result.output is None


async def test_an_output_beyond_the_limits_leaves_nothing(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.output = [folder_archive(".", {"big": bytes(10_000_001)})]

    result = await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.exits[-1].end is PhaseEnd.DISK_FULL
    assert not (tmp_path / "checkout.output").exists()


async def test_a_log_that_breaks_off_goes_on_where_it_was_cut(cluster: FakeCluster, tmp_path: Path) -> None:
    data = log("one", "two") + log("three " * 10, "four", second=1) + log("five", second=2)
    for cut in (0, 10, 33, 40, len(data) // 2, len(data) - 3, len(data)):
        cluster.plays["phase-0"] = PodPlay(data, cuts=[cut, min(cut + 40, len(data))])
        listener = Listener()

        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), listener, Trees())

        assert listener.text[False] == b"one\ntwo\n" + b"three " * 10 + b"\nfour\nfive\n"


def test_every_cut_of_a_log_is_mended() -> None:
    # Some at the same moment, some out of step.
    lines = [("0.1", "a"), ("0.1", "bb"), ("1.2", ""), ("1.1", "ccc cc"), ("1.2", "d"), ("2.0", "e" * 30)]
    data = b"".join(f"2026-01-01T00:00:0{second}00000000Z {line}\n".encode() for second, line in lines)
    expected = b"".join(f"{line}\n".encode() for _, line in lines)
    for first in range(len(data) + 1):
        for second in range(0, len(data) + 1, 7):
            place = LogPlace()
            text = b""
            for end in (first, second, len(data)):
                place.reconnect()
                since = (place.since or "")[:19].encode()
                again = b"".join(line for line in data.splitlines(keepends=True) if line[:19] >= since)
                text += place.take(again[:end])
            assert text == expected, (first, second)


def test_a_log_that_began_a_new_file_meanwhile_is_not_skipped() -> None:
    place = LogPlace()
    place.take(log("one", "two", "three"))
    place.reconnect()

    assert place.take(log("four", second=0).replace(b".000000000", b".500000000")) == b"four\n"


def test_a_log_without_timestamps_is_an_error() -> None:
    with pytest.raises(ClusterError, match="timestamp"):
        LogPlace().take(b"x" * 100)


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName"])
async def test_an_image_that_cannot_be_had_is_said_at_once(cluster: FakeCluster, tmp_path: Path, reason: str) -> None:
    cluster.waiting = {"reason": reason, "message": "Back-off pulling image"}

    with pytest.raises(RunnerUnavailable, match="Back-off pulling image"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    assert not cluster.pods


async def test_a_pod_that_does_not_start_is_given_up(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_build.Build.until_running, "__kwdefaults__", {"patience_seconds": 0.2})
    cluster.waiting = {"reason": "ContainerCreating"}

    with pytest.raises(RunnerUnavailable, match="did not start"):
        await runner_of(cluster, tmp_path).run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    assert not cluster.pods


async def test_the_token_is_read_anew(cluster: FakeCluster, tmp_path: Path) -> None:
    runner = runner_of(cluster, tmp_path)
    await runner.probe()
    cluster.token = "rotated"
    with pytest.raises(RunnerUnavailable, match="401"):
        await runner.probe()
    (tmp_path / "token").write_text("rotated")
    await runner.probe()


async def test_no_server_and_no_token_are_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    here = {"kubernetes_url": "http://127.0.0.1:9", "kubernetes_ca_file": None}
    runner = KubernetesRunner(make_settings(tmp_path, **here, kubernetes_token_file=tmp_path / "token"))
    with pytest.raises(RunnerUnavailable, match="cannot be reached"):
        await runner.probe()
    runner = KubernetesRunner(make_settings(tmp_path, **here, kubernetes_token_file=tmp_path / "none"))
    with pytest.raises(RunnerUnavailable, match="KUBERNETES_TOKEN_FILE"):
        await runner.probe()
    runner = KubernetesRunner(make_settings(tmp_path, kubernetes_ca_file=tmp_path / "none"))
    with pytest.raises(RunnerUnavailable, match="KUBERNETES_CA_FILE"):
        await runner.probe()


async def test_a_probe_runs_nothing(cluster: FakeCluster, tmp_path: Path) -> None:
    found = await runner_of(cluster, tmp_path).probe()

    assert "v1.35.0" in found.detail
    assert ", user namespaces," in found.detail
    assert cluster.asked("POST .*/jobs[?]dryRun=All")
    assert not cluster.jobs


async def test_a_probe_names_missing_rights(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.denied = {("create", "pods/exec"), ("patch", "jobs")}

    with pytest.raises(RunnerUnavailable, match=r"patch jobs, create pods/exec"):
        await runner_of(cluster, tmp_path).probe()


async def test_an_older_cluster_is_said_to_lack_user_namespaces(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.drops_host_users = True

    assert "no user namespaces" in (await runner_of(cluster, tmp_path).probe()).detail


async def test_reaping_removes_and_nothing_to_reap_is_fine(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.jobs[NAME] = {"metadata": {"name": NAME, "uid": "uid-lost", "labels": {"switchyard-attempt": "lost"}}}
    runner = runner_of(cluster, tmp_path)

    await runner.reap("dep_1")
    await runner.reap("dep_1")

    assert not cluster.jobs


@pytest.mark.parametrize("build_id", ["dep_1", "DEP", "a" * 80, "../../secrets", "x-", "ä"])
def test_every_id_has_a_name_that_a_cluster_takes(build_id: str) -> None:
    name = job_name(build_id)

    assert len(name) <= 63
    assert name.replace("-", "").isalnum()
    assert name.isascii()
    assert name == name.lower()
    assert name != job_name(build_id + "1")


async def test_only_the_clusters_certificate_is_believed(tmp_path: Path) -> None:
    certificate, other, server = _certificates(tmp_path)
    async with FakeCluster().listening(tls=server) as cluster:
        settings = settings_of(cluster, tmp_path, kubernetes_ca_file=certificate)
        assert "v1.35.0" in (await KubernetesRunner(settings).probe()).detail
        settings = settings_of(cluster, tmp_path, kubernetes_ca_file=other)
        with pytest.raises(RunnerUnavailable, match="cannot be reached"):
            await KubernetesRunner(settings).probe()


def _certificates(folder: Path) -> tuple[Path, Path, ssl.SSLContext]:
    paths = []
    for name in ("cluster", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        path = folder / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.with_suffix(".key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
        paths.append(path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(paths[0], paths[0].with_suffix(".key"))
    return paths[0], paths[1], server
