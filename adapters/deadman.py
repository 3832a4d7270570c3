"""A small program that starts one command and promises that nothing of it outlives its owner.

Run as `python -I -S deadman.py <control fd> <status fd>`, with the child's stdin, stdout and stderr as 0, 1 and 2; the
owner's side is `adapters/processes.py`. It imports nothing of the project and little of the standard library, so that
it starts in about 20 ms, and it runs with an empty environment: the child's variables could be a user's, and
LD_PRELOAD must act on the child only.

Invariant: the whole tree of the child (double forks, new sessions, daemons) is dead soon after the control pipe closes,
the deadline passes, the owner says `kill`, the child itself exits, or this program is killed. `exited` is said only
once nothing of the tree is left.

    owner ── deadman ── init ── child …      init is PID 1 of a namespace, or a subreaper, or merely a parent

Control pipe, from the owner:
    start <n>\\n and n bytes: NUL-separated `key:value` records, see `Order`
    deadline <seconds of CLOCK_MONOTONIC>\\n   signal TERM|INT\\n   kill\\n
Status pipe, to the owner, one JSON object a line:
    {"event": "started", "pid", "init_pid", "isolation", "private_proc"}
    {"event": "failed", "errno", "step"}                                      the command could not be started
    {"event": "exited", "exit_code", "signal", "reason", "tree_gone", "cpu_milliseconds", "peak_rss_bytes"}

It leaves out memory limits (the owner watches), and protection of the host from the child: a build gets a sandbox.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

LINUX = sys.platform == "linux"
PID_NAMESPACE, SUBREAPER, PROCESS_GROUP = "pid_namespace", "subreaper", "process_group"
EXITED, KILLED, DEADLINE, ORPHANED, LOST = "exited", "killed", "deadline", "orphaned", "lost"

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000  # linux/sched.h
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 2, 4, 8, 0x4000, 0x80000  # linux/mount.h

FORWARDED = {b"TERM": signal.SIGTERM, b"INT": signal.SIGINT}
LIMITS = {b"NOFILE": resource.RLIMIT_NOFILE, b"CORE": resource.RLIMIT_CORE, b"FSIZE": resource.RLIMIT_FSIZE}
LONGEST_POLL_SECONDS = 3_600.0
LAST_WORDS_SECONDS = 1.0

if LINUX:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)


class Order:
    """What to start: `argv:` (repeated), `env:NAME=VALUE` (repeated), `cwd:`, `deadline:`, `isolation:` (the strongest
    to try, empty for the best), `keep:` (a descriptor the child inherits, repeated) and `limit:NAME=number` (repeated).
    """

    def __init__(self, record: bytes) -> None:
        self.argv: list[bytes] = []
        self.env: dict[bytes, bytes] = {}
        self.cwd = b"/"
        self.deadline = 0.0
        self.isolation = ""
        self.keep: list[int] = []
        self.limits: list[tuple[int, int]] = []
        for field in record.split(b"\0"):
            key, _, value = field.partition(b":")
            name, _, rest = value.partition(b"=")
            if key == b"argv":
                self.argv.append(value)
            elif key == b"env":
                self.env[name] = rest
            elif key == b"cwd":
                self.cwd = value
            elif key == b"deadline":
                self.deadline = float(value)
            elif key == b"isolation":
                self.isolation = value.decode()
            elif key == b"keep":
                self.keep.append(int(value))
            elif key == b"limit":
                self.limits.append((LIMITS[name], int(rest)))


class Inbox:
    """The lines that arrive on a pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = b""
        self.closed = False

    def fill(self) -> None:
        """Read what is there; blocks only while nothing is."""
        chunk = os.read(self.descriptor, 65_536)
        self.closed = not chunk
        self.buffer += chunk

    def take_lines(self) -> list[bytes]:
        """The complete lines so far."""
        *lines, self.buffer = self.buffer.split(b"\n")
        return lines

    def take_order(self) -> Order | None:
        """The first message, or None when the owner went away before it was complete."""
        while b"\n" not in self.buffer and not self.closed:
            self.fill()
        header, _, self.buffer = self.buffer.partition(b"\n")
        length = int(header.removeprefix(b"start ") or b"0")
        while len(self.buffer) < length and not self.closed:
            self.fill()
        if self.closed:
            return None
        record, self.buffer = self.buffer[:length], self.buffer[length:]
        return Order(record)


def main(control: int, status: int) -> None:
    """Start the child, wait for one of the five ends, end the tree, say so."""
    # A signal sent to everybody (a terminal, a service manager stopping the unit) must not end the one who cleans up.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    inbox = Inbox(control)
    order = inbox.take_order()
    if order is None:
        return
    isolation = isolate(order.isolation)
    outer_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if LINUX else -1
    lifeline_end, lifeline = os.pipe()
    report, report_end = os.pipe()
    os.set_blocking(lifeline, False)
    init_pid = os.fork()
    if init_pid == 0:
        try:
            for descriptor in (control, status, lifeline, report):
                os.close(descriptor)
            be_init(order, isolation, lifeline_end, report_end, outer_proc)
        finally:
            os._exit(70)
    for descriptor in (lifeline_end, report_end):
        os.close(descriptor)
    release(order.keep)
    watch = Watch(inbox, Inbox(report), lifeline, order.deadline)
    reason = watch.until_end(status, init_pid, isolation)
    living_milliseconds, living_peak_bytes = (0, 0) if reason == EXITED else usage_of_living(init_pid)
    watch.end_tree(init_pid, isolation)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of all that were waited for, by whomever of the tree
    cpu_milliseconds = max(living_milliseconds, int((usage.ru_utime + usage.ru_stime) * 1_000))
    # getrusage(2): kilobytes on Linux, bytes on macOS.
    peak_rss_bytes = max(living_peak_bytes, usage.ru_maxrss * (1_024 if LINUX else 1))
    if watch.failure:
        errno_text, step = watch.failure
        send(status, f'{{"event": "failed", "errno": {errno_text}, "step": "{step}"}}\n')
        return
    code = os.waitstatus_to_exitcode(watch.wait_status) if reason == EXITED else -signal.SIGKILL
    exit_code, signal_number = (str(code), "null") if code >= 0 else ("null", str(-code))
    send(
        status,
        f'{{"event": "exited", "exit_code": {exit_code}, "signal": {signal_number}, "reason": "{reason}", '
        f'"tree_gone": true, "cpu_milliseconds": {cpu_milliseconds}, "peak_rss_bytes": {peak_rss_bytes}}}\n',
    )


class Watch:
    """Waiting for the end: what the owner says, what init reports, what the clock shows."""

    def __init__(self, inbox: Inbox, report: Inbox, lifeline: int, deadline: float) -> None:
        self.inbox = inbox
        self.report = report
        self.lifeline = lifeline
        self.deadline = deadline
        self.child_pid = 0
        self.wait_status = 0
        self.failure: tuple[str, str] | None = None

    def until_end(self, status: int, init_pid: int, isolation: str) -> str:
        """The reason of the end.

        What has arrived is read before the clock is judged: deadlines are absolute, so a renewal that waited in the
        pipe while everything was frozen counts. The child's own end wins over a kill that came at the same moment.
        """
        poller = select.poll()
        for descriptor in (self.inbox.descriptor, self.report.descriptor):
            poller.register(descriptor, select.POLLIN)
        while True:
            left = min(max(self.deadline - time.monotonic(), 0.0), LONGEST_POLL_SECONDS)
            ready = {descriptor for descriptor, _ in poller.poll(int(left * 1_000) + 1)}
            if self.report.descriptor in ready:
                self.report.fill()
            if self.inbox.descriptor in ready:
                self.inbox.fill()
            for line in self.report.take_lines():
                word, *details = line.decode().split(" ")
                if word == "exited":
                    self.wait_status = int(details[0])
                    return EXITED
                if word == "failed":
                    self.failure = (details[0], details[1])
                    return EXITED
                self.child_pid = int(details[0])
                send(
                    status,
                    f'{{"event": "started", "pid": {self.child_pid}, "init_pid": {init_pid}, '
                    f'"isolation": "{isolation}", "private_proc": {details[1]}}}\n',
                )
            for line in self.inbox.take_lines():
                message, _, argument = line.partition(b" ")
                if message == b"kill":
                    return KILLED
                if message == b"deadline":
                    self.deadline = float(argument)
                elif message == b"signal":
                    send(self.lifeline, bytes([FORWARDED[argument]]))
            if self.report.closed:
                return LOST
            if self.inbox.closed:
                return ORPHANED
            if time.monotonic() >= self.deadline:
                return DEADLINE

    def end_tree(self, init_pid: int, isolation: str) -> None:
        """Kill everything; returns once nothing is left."""
        if isolation != PID_NAMESPACE:
            end_visible(self.child_pid if isolation == PROCESS_GROUP else 0)
            return
        # Init is asked first, because the kernel forgets the usage of processes that it ends along with their init.
        send(self.lifeline, bytes([signal.SIGKILL]))
        limit = time.monotonic() + LAST_WORDS_SECONDS
        poller = select.poll()
        poller.register(self.report.descriptor, select.POLLIN)
        while not self.report.closed and poller.poll(max(0, int((limit - time.monotonic()) * 1_000))):
            self.report.fill()
        os.kill(init_pid, signal.SIGKILL)
        # The kernel reports init's death only after the last process of the namespace has been reaped.
        os.waitpid(init_pid, 0)


def isolate(strongest: str) -> str:
    """Prepare the best isolation at hand, no stronger than `strongest`; returns which it is.

    A namespace is certain: the kernel ends it with its init. A subreaper is nearly so: orphans come back to it, so
    "no children left" proves the end, but a hostile child of the same user could kill both supervisors at once. A
    process group is best effort: a daemon that left its session and lost its parent is out of sight.
    """
    if LINUX and strongest in ("", PID_NAMESPACE) and enter_pid_namespace():
        return PID_NAMESPACE
    if LINUX and strongest != PROCESS_GROUP and libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        return SUBREAPER
    return PROCESS_GROUP


def enter_pid_namespace() -> bool:
    """Give the processes forked from now on a PID namespace; False, with nothing changed, where that is denied."""
    if libc.unshare(CLONE_NEWPID) == 0:
        return True
    # Without privilege it takes a user namespace as well. Some systems grant it and then deny its maps, which would
    # leave us nobody: a throw-away process tries first.
    probe = os.fork()
    if probe == 0:
        os._exit(0 if enter_user_namespace() else 1)
    _, wait_status = os.waitpid(probe, 0)
    return wait_status == 0 and enter_user_namespace()


def enter_user_namespace() -> bool:
    """New user and PID namespaces in which user and group keep their numbers."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    return True


def be_init(order: Order, isolation: str, lifeline: int, report: int, outer_proc: int) -> None:
    """The init: starts the child, reaps orphans, forwards signals, and ends everything when deadman is gone.

    Deadman's death shows twice: as a signal (in a namespace) and as the end of the lifeline, whose other end only
    deadman holds; so a death before the signal was asked for is noticed as well.
    """
    private_proc = False
    if isolation == PID_NAMESPACE:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        private_proc = mount_private_proc()
    elif isolation == SUBREAPER:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, wake_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    failure, failure_end = os.pipe()
    child = os.fork()
    if child == 0:
        become_child(order, failure_end, outer_proc)
    os.close(failure_end)
    release(order.keep)
    first = Inbox(failure)
    while not first.closed:  # the other end closes at exec
        first.fill()
    outer_pid, *trouble = first.buffer.decode().split(" ")
    started = f"failed {' '.join(trouble)}" if trouble else f"started {outer_pid} {str(private_proc).lower()}"
    send(report, started + "\n")

    alive = True
    poller = select.poll()
    for descriptor in (lifeline, wake):
        poller.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if wake in ready:
            os.read(wake, 4_096)
            for pid, wait_status in reap()[0]:
                if pid == child:
                    alive = False
                    send(report, f"exited {wait_status}\n")
        if lifeline in ready:
            numbers = os.read(lifeline, 64)
            if not numbers:
                break
            if signal.SIGKILL in numbers:
                send_signal(-1, signal.SIGKILL)  # to all of the namespace, at one stroke
                while reap_one():
                    pass
                break
            for number in numbers:
                if alive:
                    os.kill(child, number)
    if isolation != PID_NAMESPACE:
        end_visible(child if isolation == PROCESS_GROUP else 0)
    os._exit(0)  # in a namespace the kernel now kills whatever is left


def mount_private_proc() -> bool:
    """Let the tree see only itself in /proc, not the environment of its owner; False where mounts are denied."""
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None) != 0:
        return False
    return bool(libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None) == 0)


def become_child(order: Order, failure: int, outer_proc: int) -> None:
    """Turn into the command; a failure is told as `<errno> <step>` after the PID that the owner sees."""
    step = "prepare"
    try:
        own_pid = os.readlink("self", dir_fd=outer_proc) if LINUX else str(os.getpid())
        os.write(failure, own_pid.encode())
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for kind, value in order.limits:
            ceiling = resource.getrlimit(kind)[1]
            bounded = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
            resource.setrlimit(kind, (bounded, bounded))
        step = "cwd"
        os.chdir(order.cwd)
        step = "exec"
        os.execvpe(order.argv[0], order.argv, order.env)  # noqa: S606 - starting the owner's command is the purpose
    except OSError as error:
        os.write(failure, f" {error.errno} {step}".encode())
    finally:
        os._exit(127)


def end_visible(session: int) -> None:
    """Kill and reap until this process has no descendant and `session` (0: none) no member."""
    pause = 0.001
    while True:
        targets = living_descendants(os.getpid(), session)
        for pid in targets:
            send_signal(pid, signal.SIGKILL)
        if not reap()[1] and not targets:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def living_descendants(root: int, session: int) -> set[int]:
    """PIDs below `root` in the table of processes, and those in the child's session or group; no zombies."""
    rows = processes_of_proc() if LINUX else processes_of_ps()
    children: dict[int, list[int]] = {}
    for pid, parent, _, _ in rows:
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    if session:
        found |= {pid for pid, _, group, _ in rows if group == session}
    return {pid for pid, _, _, dead in rows if pid in found and not dead}


def usage_of_living(root: int) -> tuple[int, int]:
    """Processor time in ms of `root` and what lives below it, with what they waited for; their peak in bytes.

    Looked at before a kill, because the kernel forgets the usage of processes that it ends along with the init of their
    namespace, and a sandbox inside the tree has such an init. Parents first: nothing is counted twice.
    """
    ticks = peak = 0
    for pid in sorted({root, *living_descendants(root, 0)}) if LINUX else ():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                ticks += sum(map(int, file.read().rpartition(b")")[2].split()[11:15]))
            with open(f"/proc/{pid}/status", "rb") as file:
                peak = max([peak, *(int(line.split()[1]) * 1_024 for line in file if line.startswith(b"VmHWM:"))])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks * 1_000 // os.sysconf("SC_CLK_TCK"), peak


def processes_of_proc() -> list[tuple[int, int, int, bool]]:
    """(pid, parent, session, whether a zombie) of every process, from /proc."""
    rows = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command name in brackets may hold anything, brackets and spaces too: proc(5).
                    state, parent, _, session = file.read().rpartition(b")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            rows.append((int(name), int(parent), int(session), state in b"ZX"))
    return rows


def processes_of_ps() -> list[tuple[int, int, int, bool]]:
    """The same from ps, with the process group in place of the session, where there is no /proc."""
    output, output_end = os.pipe()
    arguments = ["ps", "-axo", "pid=,ppid=,pgid=,stat="]
    ps = os.posix_spawn("/bin/ps", arguments, {}, file_actions=[(os.POSIX_SPAWN_DUP2, output_end, 1)])
    os.close(output_end)
    with open(output, "rb") as file:
        fields = [line.split() for line in file.read().splitlines()]
    os.waitpid(ps, 0)
    return [
        (int(pid), int(parent), int(group), state.startswith(b"Z"))
        for pid, parent, group, state in fields
        if int(pid) != ps
    ]


def reap() -> tuple[list[tuple[int, int]], bool]:
    """The children that have ended (PID, wait status), and whether any is left."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended.append((pid, wait_status))


def reap_one() -> bool:
    """Wait for a child to end; False when there is none."""
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True


def release(keep: list[int]) -> None:
    """Let go of the child's ends, so that end-of-file and broken pipes mean the child and nobody else."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in (null, *keep):
        os.close(descriptor)


def send(descriptor: int, data: str | bytes) -> bool:
    """Write a short message; False when nobody reads any more, which the reader's own end will show."""
    try:
        os.write(descriptor, data.encode() if isinstance(data, str) else data)
    except (BrokenPipeError, BlockingIOError):
        return False
    return True


def send_signal(pid: int, number: int) -> bool:
    """Signal a process; False when it is already gone or no longer ours (a set-user-ID program)."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
