"""The system calls that builds do not get, as a seccomp program for bubblewrap's `--seccomp`.

Invariant: a build cannot make namespaces or mounts, look into other processes, load code into the kernel, type into a
terminal, or reach a kind of socket that network namespaces do not hold (AF_VSOCK goes to the hypervisor). Nor can it
keep memory where nobody sees it: memory files and System V segments belong to no process, so they are refused. The
list is what is refused and not what is allowed, because builds run any tool chain; it is one layer of several
(docs/decisions/0014). The module knows nothing of bubblewrap.

Numbers are from the kernel's `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h` (aarch64); the program's shape from
`linux/filter.h` and Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import struct

# linux/bpf_common.h: load a word; jump if equal, at least, any bit set; return
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# linux/seccomp.h
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24  # low words, little endian

X32_BIT = 0x40000000
NAMESPACE_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
TERMINAL_REQUESTS = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type as if the user did
SOCKET_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
MACHINES = tuple(ARCHITECTURES)

# Answered as if the kernel had never heard of them: programs fall back to what the rules below can judge.
UNKNOWN = {
    "clone3": (435, 435),  # its flags are behind a pointer
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
}
FORBIDDEN = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "syslog": (103, 116),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
}
FORBIDDEN_ON_X86 = {"iopl": 172, "ioperm": 173, "modify_ldt": 154, "uselib": 134}
CLONE = (56, 220)
IOCTL = (16, 29)
SOCKETS = ((41, 198), (53, 199))  # socket, socketpair


def program(machine: str) -> bytes:
    """The filter for a machine as `uname -m` names it: an array of `struct sock_filter`.

    Raises KeyError for a machine whose numbers are not known (see MACHINES): then there is no filter, and no build.
    """
    architecture = ARCHITECTURES[machine]
    column = MACHINES.index(machine)
    code = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),  # 32-bit programs have other numbers
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
        code += [rule for number in FORBIDDEN_ON_X86.values() for rule in _refuse(number, errno.EPERM)]
    for numbers in UNKNOWN.values():
        code += _refuse(numbers[column], errno.ENOSYS)
    for numbers in FORBIDDEN.values():
        code += _refuse(numbers[column], errno.EPERM)
    code += _on(CLONE[column], FIRST_ARGUMENT_AT, [(JUMP_SET, 0, 1, NAMESPACE_FLAGS), _refusal(errno.EPERM)])
    code += _on(
        IOCTL[column],
        SECOND_ARGUMENT_AT,
        [rule for request in TERMINAL_REQUESTS for rule in _refuse(request, errno.EPERM)],
    )
    known = len(SOCKET_FAMILIES)
    families = [(JUMP_EQUAL, known - place, 0, family) for place, family in enumerate(SOCKET_FAMILIES)]
    for numbers in SOCKETS:
        code += _on(numbers[column], FIRST_ARGUMENT_AT, [*families, _refusal(errno.EAFNOSUPPORT)])
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def _refusal(number: int) -> Instruction:
    return (RETURN, 0, 0, REFUSE | number)


def _refuse(value: int, number: int) -> list[Instruction]:
    """Refuse when what is loaded equals `value`."""
    return [(JUMP_EQUAL, 0, 1, value), _refusal(number)]


def _on(number: int, argument_at: int, rules: list[Instruction]) -> list[Instruction]:
    """For one system call load an argument and apply rules to it; what they leave over is allowed."""
    body = [(LOAD, 0, 0, argument_at), *rules, (RETURN, 0, 0, ALLOW)]
    return [(JUMP_EQUAL, 0, len(body), number), *body]
