"""What a hostile build tries, and what becomes of it.

Each attempt comes with its control: the same thing works outside the sandbox, or inside where it is allowed, so a test
cannot pass because the attempt was badly made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from adapters.sandbox import seccomp
from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import Network, Phase, PhaseEnd
from tests.harness.waiting import eventually, leftover_processes
from tests.worker.sandboxes import (
    PYTHON,
    Bench,
    Memory,
    folder_for_everybody,
    outside,
    outside_python,
    sandbox_settings,
    supervised,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("bwrap"), reason="bubblewrap is not installed"
)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the control needs root")

MEGABYTE = 2**20
FIRST_UID = 61_000

# Opens a connection and says what came of it; with a proxy it asks for a tunnel first.
CONNECT = """
import socket, sys
def attempt(host, port):
    try:
        with socket.create_connection((host, port), timeout=3) as s:
            return "open"
    except OSError as error:
        return f"shut {type(error).__name__}"
def through_proxy(request):
    with socket.create_connection(("127.0.0.1", 3128), timeout=5) as s:
        s.sendall(request.encode())
        if request.startswith("CONNECT"):
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
        return answer.decode().splitlines()[0] + " " + answer.decode().splitlines()[-1]
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    source = tmp_path / "source"
    source.mkdir()
    return Bench(source, BubblewrapRunner(sandbox_settings()))


@pytest.fixture
def mark() -> Iterator[str]:
    """A word for command lines; afterwards no process may have it."""
    value = f"breakout-{secrets.token_hex(6)}"
    yield value
    assert leftover_processes(value) == {}


# -- reading what is not its own


@AS_ROOT
async def test_the_hosts_passwords_are_not_there(bench: Bench) -> None:
    code, text = await outside("cat /etc/shadow")
    assert code == 0
    assert "root:" in text
    ran = await bench.run("cat /etc/shadow; cat /proc/1/root/etc/shadow; cat /etc/passwd")
    assert "root:x:0:0:root:/root:/sbin/nologin" in ran.text  # a file of the sandbox's own
    assert [line for line in ran.text.splitlines() if line.startswith("root:")] == [
        "root:x:0:0:root:/root:/sbin/nologin"
    ]
    assert "shadow: No such file" in ran.text


async def test_the_data_folder_and_other_builds_are_not_there(bench: Bench) -> None:
    secret = secrets.token_hex(16)
    with folder_for_everybody() as other:  # so that only the sandbox is in the way
        (other / "file").write_text(secret)
        (bench.source / "link").symlink_to(other)
        assert secret in (await outside(f"cat {other}/file link/file", cwd=bench.source))[1]
        ran = await bench.run(
            f"cat {other}/file link/file /proc/self/root{other}/file /proc/*/root{other}/file; "
            "find / -xdev -name file -exec cat {} + 2>/dev/null; echo looked"
        )
    assert "looked" in ran.text
    assert secret not in ran.text


async def test_environments_of_the_service_are_not_there(bench: Bench) -> None:
    secret = secrets.token_hex(16)
    service = subprocess.Popen(  # noqa: ASYNC220 - it only has to be there
        ["sleep", "60"], env={"PATH": os.environ["PATH"], "SECRET_KEYS": secret}
    )
    try:
        attempt = "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'"
        assert secret in (await outside(attempt))[1]
        bench.environment = {"OWN": "own-variable"}
        ran = await bench.run(f"{attempt}; ls -d /proc/[0-9]*")
        assert "OWN=own-variable" in ran.text
        assert secret not in ran.text
        # Process 1 is bubblewrap, which was started without an environment.
        assert (await bench.run("tr '\\0' '\\n' < /proc/1/environ | wc -c")).text == "0"
    finally:
        service.kill()
        service.wait(timeout=10)


async def test_the_build_sees_only_its_own_processes(bench: Bench) -> None:
    assert len((await outside("ls -d /proc/[0-9]*"))[1].split()) > 4
    ran = await bench.run("sleep 5 & ls -d /proc/[0-9]*")
    assert 3 <= len(ran.text.split()) <= 5  # bubblewrap, the shell, sleep and ls


async def test_nothing_inherited_is_open(bench: Bench) -> None:
    ran = await bench.run("for n in /proc/self/fd/*; do readlink $n; done", network=Network.EGRESS)
    assert [link.partition(":")[0] for link in ran.text.splitlines()] == ["/dev/null", "pipe", "pipe"]


async def test_secrets_are_on_no_command_line_and_in_no_environment_of_the_host(bench: Bench) -> None:
    secret = f"hunter-{secrets.token_hex(12)}"
    bench.environment = {"TOKEN": secret}
    listener = Memory()
    build = asyncio.ensure_future(bench.run('echo "$TOKEN"; sleep 60', listener=listener, timeout_seconds=1.2))
    async with asyncio.timeout(10):
        await listener.printed.wait()
    assert secret in listener.stdout.decode()
    seen_by_others = command_lines()
    assert any("bwrap" in line for line in seen_by_others)
    assert not any(secret in line for line in seen_by_others)
    # Of the environments only those of the command itself have it, which belong to the build's user.
    holders = [psutil.Process(pid) for pid in leftover_processes(secret)]
    if os.geteuid() == 0:
        assert holders
        assert all(holder.uids().real >= FIRST_UID for holder in holders)
    assert {holder.name() for holder in holders} <= {"sh", "sleep"}
    assert (await build).exit.end is PhaseEnd.TIMED_OUT


def command_lines() -> list[str]:
    lines = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                lines.append(Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace"))
    return lines


# -- reaching what is not its own


@asynccontextmanager
async def web_server(answer: str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nthe api\n") -> AsyncIterator[int]:
    """A server on loopback that stands for the API, or for a registry."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer.encode())
            await writer.drain()
        writer.close()

    served = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield served.sockets[0].getsockname()[1]
    finally:
        served.close()


@pytest.mark.parametrize("network", list(Network))
async def test_nothing_of_the_host_or_the_network_can_be_reached_directly(
    bench: Bench, network: Network, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    ports = [urlsplit(postgres_url).port or 5_432, urlsplit(redis_url).port or 6_379]
    async with web_server() as api:
        loopback = CONNECT + "".join(f"print(attempt('127.0.0.1', {port}))\n" for port in (*ports, api))
        assert (await outside_python(loopback, tmp_path)).split() == ["open"] * 3
        elsewhere = f"""
print(attempt("::1", {api}), attempt("169.254.169.254", 80), attempt("10.0.0.1", 443), attempt("1.1.1.1", 443))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendto(b"x", ("1.1.1.1", 53)); print("sent")
except OSError:
    print("not sent")
print(attempt("127.0.0.1", 3128))
"""
        ran = await bench.python(loopback + elsewhere, network=network)
    *shut, udp, proxy = ran.text.splitlines()
    assert udp == "not sent"
    assert proxy == ("open" if network is Network.EGRESS else "shut ConnectionRefusedError")
    assert len(shut) == 4
    assert all("open" not in line for line in shut), ran.text


async def test_loopback_is_the_only_interface(bench: Bench) -> None:
    names = "import socket\nprint([name for _, name in socket.if_nameindex()])"
    for network in Network:
        assert (await bench.python(names, network=network)).text == "['lo']"


async def test_abstract_and_named_sockets_of_the_host_are_out_of_reach(bench: Bench, tmp_path: Path) -> None:
    name = secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as named:
        abstract.bind(f"\0{name}")
        abstract.listen()
        named.bind(str(tmp_path / "s"))
        named.listen()
        code = f"""
import socket
for address in ({f"{chr(0)}{name}"!r}, {str(tmp_path / "s")!r}):
    try:
        socket.socket(socket.AF_UNIX).connect(address); print("open")
    except OSError as error:
        print(type(error).__name__)
"""
        assert (await outside_python(code, tmp_path)).split() == ["open", "open"]
        ran = await bench.python(code, network=Network.EGRESS)
    assert ran.text.split() == ["ConnectionRefusedError", "FileNotFoundError"]


async def test_the_proxy_refuses_the_host_the_network_and_every_spelling_of_them(bench: Bench) -> None:
    async with web_server() as api:
        targets = [f"127.0.0.1:{api}", f"localhost:{api}", f"2130706433:{api}", "127.1:80", "0x7f.0.0.1:80"]
        targets += ["169.254.169.254:80", "10.0.0.1:443", "[::1]:80", "[::ffff:169.254.169.254]:80", "1.1.1.1:22"]
        code = f"""{CONNECT}
for target in {targets}:
    print(through_proxy(f"CONNECT {{target}} HTTP/1.1\\r\\n\\r\\n"))
    print(through_proxy(f"GET http://{{target}}/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"))
"""
        ran = await bench.python(code, network=Network.EGRESS)
    lines = ran.text.splitlines()
    assert len(lines) == 2 * len(targets)
    assert all(line.startswith("HTTP/1.1 403 Forbidden Switchyard: ") for line in lines), lines
    assert [target for target, _ in ran.listener.refusals] == [target for target in targets for _ in range(2)]
    assert all(reason for _, reason in ran.listener.refusals)


async def test_what_the_operator_opened_can_be_reached_by_that_name_only(tmp_path: Path) -> None:
    async with web_server() as registry, web_server() as api:
        runner = BubblewrapRunner(sandbox_settings(build_allowed_hosts=(f"127.0.0.1:{registry}",)))
        code = f"""{CONNECT}
print(through_proxy("GET http://127.0.0.1:{registry}/x HTTP/1.1\\r\\n\\r\\n"))
print(through_proxy("CONNECT 127.0.0.1:{registry} HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n"))
print(through_proxy("GET http://localhost:{registry}/x HTTP/1.1\\r\\n\\r\\n"))
print(through_proxy("GET http://127.0.0.1:{api}/x HTTP/1.1\\r\\n\\r\\n"))
"""
        ran = await Bench(tmp_path, runner).python(code, network=Network.EGRESS)
    assert len(ran.text.splitlines()) == 4, ran.text
    plain, tunnel, by_other_name, other_port = ran.text.splitlines()
    assert plain == "HTTP/1.1 200 OK the api"
    assert tunnel == "HTTP/1.1 200 Connection established the api"
    assert by_other_name.startswith("HTTP/1.1 403 ")
    assert other_port.startswith("HTTP/1.1 403 ")
    assert [target for target, _ in ran.listener.refusals] == [f"localhost:{registry}", f"127.0.0.1:{api}"]


async def test_a_redirect_to_the_metadata_service_is_refused(tmp_path: Path) -> None:
    location = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n"
    async with web_server(location) as port:
        runner = BubblewrapRunner(sandbox_settings(build_allowed_hosts=(f"127.0.0.1:{port}",)))
        code = f"""
import urllib.request, urllib.error
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{"http": "http://127.0.0.1:3128"}}))
try:
    print(opener.open("http://127.0.0.1:{port}/", timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code, error.url)
"""
        bench = Bench(tmp_path, runner, environment={"no_proxy": ""})
        ran = await bench.python(code, network=Network.EGRESS)
    assert ran.text == "403 http://169.254.169.254/latest/"
    assert [target for target, _ in ran.listener.refusals] == ["169.254.169.254:80"]


async def test_more_traffic_than_allowed_ends_the_build(tmp_path: Path) -> None:
    answer = "HTTP/1.1 200 OK\r\n\r\n" + "x" * MEGABYTE
    async with web_server(answer) as port:
        runner = BubblewrapRunner(sandbox_settings(build_allowed_hosts=(f"127.0.0.1:{port}",)))
        bench = Bench(tmp_path, runner)
        request = f"GET http://127.0.0.1:{port}/ HTTP/1.1\\r\\n\\r\\n"
        fetch = f"{CONNECT}\nfor _ in range(4):\n    through_proxy('{request}')\nprint('all')\n"
        ran = await bench.python(fetch, network=Network.EGRESS)
        assert (ran.exit.end, ran.text) == (PhaseEnd.EXITED, "all")
        ran = await bench.python(fetch, network=Network.EGRESS, egress_bytes=3 * MEGABYTE)
        assert ran.exit.end is PhaseEnd.EGRESS_LIMIT
        assert ran.result.output is None


# -- changing what is not its own


async def test_only_its_folders_can_be_written(bench: Bench, tmp_path: Path) -> None:
    bench.cache = tmp_path / "cache"
    bench.cache.mkdir()
    places = ["/x", "/usr/x", "/usr/bin/x", "/etc/x", "/etc/passwd", "/dev/x", "/proc/sys/kernel/hostname", "/var/x"]
    places += ["/home/x", f"{Path(PYTHON).parent}/x", "/etc/ssl/certs/ca-certificates.crt"]
    good = ["/workspace/x", "/cache/x", "/tmp/x", "/home/build/x", "/dev/shm/x", "/var/tmp/x"]
    command = "; ".join(f"(echo x > {place}) 2>/dev/null && echo wrote {place}" for place in places + good)
    ran = await bench.run(command)
    assert ran.text.split("\n") == [f"wrote {place}" for place in good]


# System calls with arguments that do nothing even where they are allowed: the control runs as root on the host.
ATTEMPTS = {
    "mount": "None, None, None, 0, None",
    "umount2": "None, 0",
    "unshare": "0x10000000",  # of a child that ends at once
    "setns": "-1, 0",
    "chroot": "None",
    "ptrace": "16, 999999, 0, 0",
    "process_vm_readv": "999999, None, 0, None, 0, 0",
    "bpf": "99, None, 0",
    "perf_event_open": "None, 0, -1, -1, 0",
    "keyctl": "0, -1, 0",
    "add_key": "None, None, None, 0, 0",
    "init_module": "None, 0, None",
    "personality": "0xffffffff",  # asks
    "memfd_create": "None, 0",
    "shmget": "0, 0, 0",
    "io_uring_setup": "1, None",
    "clone3": "None, 0",
    "pidfd_getfd": "-1, -1, 0",
    "userfaultfd": "1",
    "open_by_handle_at": "-1, None, 0",
}


@AS_ROOT
async def test_system_calls_that_break_out_are_refused(bench: Bench) -> None:
    column = seccomp.MACHINES.index(platform.machine())
    numbers = {name: pair[column] for name, pair in (seccomp.FORBIDDEN | seccomp.UNKNOWN).items()}
    code = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    if os.fork() == 0:
        given = [a.encode() if isinstance(a, str) else a for a in arguments]
        answer = libc.syscall(number, *given)
        print(name, errno.errorcode.get(ctypes.get_errno()) if answer == -1 else "done", flush=True)
        os._exit(0)
    os.wait()
"""
    for name, arguments in ATTEMPTS.items():
        code += f"call({name!r}, {numbers[name]}, {arguments})\n"
    ran = await bench.python(code)
    inside = dict(line.split() for line in ran.text.splitlines())
    assert inside == {name: "ENOSYS" if name in seccomp.UNKNOWN else "EPERM" for name in ATTEMPTS}
    _, text = await outside(f"unshare --mount --ipc {PYTHON} -I -S probe.py", cwd=bench.source)
    unhindered = dict(line.split() for line in text.splitlines())
    assert unhindered.keys() == inside.keys()
    # As root the kernel judges the arguments instead. (Some machines lack or forbid one of these to everybody.)
    alike = {name for name in ATTEMPTS if unhindered[name] == inside[name]}
    assert len(alike) <= 4, alike


async def test_clone_with_namespaces_and_odd_sockets_are_refused(bench: Bench, tmp_path: Path) -> None:
    column = seccomp.MACHINES.index(platform.machine())
    code = f"""
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x11, 0x10000011, 0x40000011):
    pid = libc.syscall({seccomp.CLONE[column]}, flags, None, None, None, None)
    if pid == 0:
        os._exit(0)
    print("made" if pid > 0 else errno.errorcode[ctypes.get_errno()])
for family in (socket.AF_INET, socket.AF_UNIX, 16, 40, 38, 17):
    try:
        socket.socket(family, socket.SOCK_DGRAM if family != 38 else socket.SOCK_SEQPACKET); print("socket")
    except OSError as error:
        print(errno.errorcode[error.errno])
try:
    import fcntl, pty
    fcntl.ioctl(pty.openpty()[1], 0x5412, b"x"); print("typed")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    ran = await bench.python(code)
    odd = ["EAFNOSUPPORT"] * 3
    assert ran.text.split() == ["made", "EPERM", "EPERM", "socket", "socket", "socket", *odd, "EPERM"]
    if os.geteuid() == 0:
        assert (await outside_python(code, tmp_path)).split()[:3] == ["made"] * 3


async def test_no_privilege_can_be_had(bench: Bench) -> None:
    ran = await bench.run("grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; id -u; id -G")
    fields = [line.split()[-1] for line in ran.text.splitlines()]
    assert fields == ["0000000000000000"] * 5 + ["1", "2", "1000", "1000"]
    if os.geteuid() == 0:
        listener = Memory()
        marked = asyncio.ensure_future(
            bench.run("echo > mine; echo now; sleep 60", timeout_seconds=1, listener=listener)
        )
        await listener.printed.wait()
        assert (bench.source / "mine").stat().st_uid >= FIRST_UID
        await marked


# -- taking too much


async def test_a_fork_bomb_is_bounded_and_the_phase_ends(bench: Bench, mark: str) -> None:
    bomb = f"""
import os, time
"{mark}"
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    print(made, flush=True)
if os.getppid() != 1:
    time.sleep(60)
"""
    ran = await bench.python(bomb, processes=40, timeout_seconds=1.2)
    assert ran.exit.end is PhaseEnd.TIMED_OUT
    assert 20 <= int(ran.text) < 40
    ran = await bench.run(
        f"bomb() {{ bomb {mark} | bomb {mark} & }}; (bomb) & exec sleep 60", processes=40, timeout_seconds=1.5
    )
    assert ran.exit.end is PhaseEnd.TIMED_OUT
    assert (await bench.run("true")).exit.is_success


HOGS = {
    "heap": """
held = []
while True:
    held.append(bytearray(b"x") * 4_000_000)
    time.sleep(0.005)
""",
    "many processes": """
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b"x") * 30_000_000
        time.sleep(60)
""",
    "shared mapping": """
shared = mmap.mmap(-1, 10**9)
for place in range(0, 10**9, 4096):
    shared[place] = 1
    if place % 4_096_000 == 0:
        time.sleep(0.005)
""",
    "memory folders": """
for folder in ("/tmp", "/dev/shm", "/home/build"):
    for n in range(3):
        with open(f"{folder}/{n}", "wb") as file:
            file.write(bytes(10_000_000))
""",
    "empty files": """
for n in range(80_000):
    os.close(os.open(f"/tmp/{n}", os.O_CREAT))
""",
}


@pytest.mark.parametrize("hog", HOGS)
async def test_a_memory_hog_is_ended(bench: Bench, hog: str, mark: str) -> None:
    code = f"import mmap, os, time\n'{mark}'\n{HOGS[hog]}\ntime.sleep(60)"
    ran = await bench.python(code, memory_bytes=64 * MEGABYTE)
    assert ran.exit.end is PhaseEnd.OUT_OF_MEMORY, (ran.exit, ran.text)
    assert ran.exit.peak_memory_bytes > 64 * MEGABYTE


async def test_memory_within_the_limit_is_no_matter(bench: Bench) -> None:
    ran = await bench.python(
        "import time\nheld = bytearray(b'x') * 90_000_000\ntime.sleep(0.5)", memory_bytes=128 * MEGABYTE
    )
    assert ran.exit.is_success
    assert ran.exit.peak_memory_bytes > 90_000_000


async def test_memory_at_one_blow_fails_for_the_process_itself(bench: Bench) -> None:
    ran = await bench.python("held = bytearray(3 * 10**9)")
    assert ran.exit.end is PhaseEnd.EXITED
    assert "MemoryError" in ran.text


FILLERS = {
    "many files": """
for n in range(1_000):
    with open(str(n), "wb") as file:
        file.write(bytes(10**6))
    time.sleep(0.01)
""",
    "files without names": """
held = []
for _ in range(100):
    held.append(open("file", "wb"))
    os.unlink("file")
    held[-1].write(bytes(10**7))
    held[-1].flush()
    time.sleep(0.1)
""",
    "the cache": """
for n in range(1_000):
    with open(f"/cache/{n}", "wb") as file:
        file.write(bytes(10**6))
    time.sleep(0.01)
""",
    "folders too deep to look into": """
for _ in range(300):
    os.mkdir("d")
    os.chdir("d")
time.sleep(60)
""",
    "empty files": """
for n in range(8_000):
    os.close(os.open(str(n), os.O_CREAT))
time.sleep(60)
""",
    "quicker than anyone looks": """
for n in range(9):
    with open(str(n), "wb") as file:
        file.write(bytes(10**7))
""",
}


@pytest.mark.parametrize("filler", FILLERS)
async def test_a_disk_hog_is_ended(bench: Bench, filler: str, tmp_path: Path, mark: str) -> None:
    bench.cache = tmp_path / "cache"
    bench.cache.mkdir()
    ran = await bench.python(f"import os, time\n'{mark}'\n{FILLERS[filler]}", disk_bytes=24 * MEGABYTE)
    assert ran.exit.end is PhaseEnd.DISK_FULL, (ran.exit, ran.text)
    assert ran.result.output is None


async def test_disk_within_the_limit_is_no_matter_and_links_count_once(bench: Bench) -> None:
    command = "head -c 40000000 /dev/zero > file; for n in 1 2 3 4; do ln file $n; done; sleep 1.2"
    assert (await bench.run(command, disk_bytes=64 * MEGABYTE)).exit.is_success


async def test_one_huge_file_is_refused_by_the_kernel(bench: Bench) -> None:
    ran = await bench.run("head -c 100000000 /dev/zero > huge; echo code $?; stat -c %s huge")
    assert ran.listener.stdout.split()[-1] == str(bench.limits.file_bytes).encode()
    assert b"code 0" not in ran.listener.stdout
    ran = await bench.run("head -c 100000000 /dev/zero > /tmp/huge; stat -c %s /tmp/huge")
    assert int(ran.listener.stdout.split()[-1]) <= bench.limits.file_bytes


async def test_memory_folders_are_bounded_by_themselves(bench: Bench) -> None:
    ran = await bench.run(
        "for n in 1 2 3 4 5 6 7 8; do head -c 20000000 /dev/zero > /tmp/$n || break; done", memory_bytes=128 * MEGABYTE
    )
    assert "No space left on device" in ran.text or ran.exit.end is PhaseEnd.OUT_OF_MEMORY


# -- staying


DAEMON = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
print("left", flush=True)
"""


async def test_a_daemon_ends_with_its_phase(bench: Bench, mark: str) -> None:
    ran = await bench.build(
        [
            Phase(name="one", command=f"{PYTHON} -I -S -c '{DAEMON}' {mark}", timeout_seconds=20),
            Phase(name="two", command=f"ls /proc | grep -c '^[0-9]' ; : {mark}", timeout_seconds=20),
        ]
    )
    assert [each.is_success for each in ran.result.exits] == [True, True]
    assert ran.listener.stdout.startswith(b"left\n")
    assert ran.exit.seconds < 5  # the pipe that the daemon held did not keep us
    assert leftover_processes(mark) == {}


async def test_a_daemon_ends_when_its_phase_is_killed(bench: Bench, mark: str) -> None:
    listener = Memory()
    command = f"{PYTHON} -I -S -c '{DAEMON}' {mark}; sleep 600"
    build = asyncio.ensure_future(bench.run(command, listener=listener, timeout_seconds=1.2))
    async with asyncio.timeout(10):
        await listener.printed.wait()
    assert len([line for line in leftover_processes(mark).values() if line.startswith(PYTHON)]) >= 1
    assert (await build).exit.end is PhaseEnd.TIMED_OUT
    assert leftover_processes(mark) == {}


async def test_a_build_ends_with_the_lease_of_its_worker(bench: Bench, mark: str) -> None:
    async with asyncio.timeout(15):
        ran = await bench.run(f"{PYTHON} -I -S -c '{DAEMON}' {mark}; sleep 600", spawn=supervised(1.0))
    assert not ran.exit.is_success
    assert ran.exit.end is PhaseEnd.EXITED
    assert ran.exit.signal == 9
    assert leftover_processes(mark) == {}


async def test_a_build_ends_with_its_worker(tmp_path: Path, mark: str) -> None:
    worker = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would reap it behind our back
        [sys.executable, "-c", WORKER, str(tmp_path), f"{PYTHON} -I -S -c '{DAEMON}' {mark}; sleep 600"],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(worker.stdout.readline) == b"left\n"
        assert len(leftover_processes(mark)) > 2
        worker.kill()
        worker.wait(timeout=10)
        await eventually(lambda: not leftover_processes(mark), 5, what="the end of the build")
    finally:
        worker.kill()
        worker.communicate(timeout=10)


WORKER = """
import asyncio, sys
from pathlib import Path
from adapters.sandbox.bubblewrap import BubblewrapRunner
from tests.worker.sandboxes import Bench, Memory, sandbox_settings
class Echo(Memory):
    async def output(self, data, *, is_error):
        print(data.decode(), end="", flush=True)
bench = Bench(Path(sys.argv[1]), BubblewrapRunner(sandbox_settings()))
asyncio.run(bench.run(sys.argv[2], listener=Echo()))
"""


async def test_two_builds_at_once_are_two_users_and_see_nothing_of_each_other(
    bench: Bench, tmp_path: Path, mark: str
) -> None:
    other = Bench(tmp_path / "other", bench.runner)
    other.source.mkdir()
    listener = Memory()
    command = f"echo secret-{mark} > file; echo now; sleep 600"
    first = asyncio.ensure_future(other.run(command, listener=listener, timeout_seconds=1.2))
    async with asyncio.timeout(10):
        await listener.printed.wait()
    ran = await bench.run("cat /proc/*/cmdline | tr '\\0' ' '; cat /workspace/*; kill -9 -1; echo mine > mine")
    assert mark not in ran.text.replace(f"cat {mark}", "")
    if os.geteuid() == 0:
        assert (other.source / "file").stat().st_uid != bench.source.stat().st_uid
    assert (await first).exit.end is PhaseEnd.TIMED_OUT  # and not killed by the other one
