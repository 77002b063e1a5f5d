"""A seccomp filter: the system calls that a process gives up, by itself and for good.

`man 2 seccomp`. The filter is a small program of classic BPF that the kernel runs at each system
call. It needs no privilege and holds in containers, where new namespaces are often forbidden.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ANSWER_ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data
_FOREIGN_NUMBERS_FROM = 0x40000000  # the x32 calls of x86-64
_CLONE_THREAD = 0x00010000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _Machine:
    """An architecture: its number for the kernel, and the column of its numbers below."""

    audit_number: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

_NEVER: Mapping[str, tuple[int | None, int | None]] = {
    # Other machines, other programs' sockets, and files by way of a ring.
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Other programs.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes of the same user.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    # Modes and owners of files, which Landlock does not look at, and sizes, before Linux 6.2.
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "open_by_handle_at": (304, 265),
    # The machine itself.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
}
"""The calls that are answered with EPERM, and their numbers on x86-64 and AArch64."""

_ON_ITSELF_ONLY = {"kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261)}
"""Calls whose first argument is a process, which must be the caller (or 0 for prlimit64)."""

_CLONE, _CLONE3 = (56, 220), (435, 435)


def refuse_system_calls() -> None:
    """Give up sockets, other programs, other processes, and the machine's settings, for good.

    Threads can be started, and signals sent to the process itself. `PR_SET_NO_NEW_PRIVS` must be
    set, and no thread started yet.

    Raises:
        OSError: the kernel refuses the filter, or the architecture is unknown.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"seccomp: no filter for {platform.machine()}")
    program = b"".join(_filter(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, described, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def _filter(machine: _Machine, process: int) -> list[bytes]:
    program = [
        _instruction(_LOAD_WORD, _ARCHITECTURE_AT),
        _instruction(_JUMP_EQUAL, machine.audit_number, 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD_WORD, _NUMBER_AT),
        _instruction(_JUMP_AT_LEAST, _FOREIGN_NUMBERS_FROM, 0, 1),
        _answer(errno.EPERM),
    ]
    for numbers in _NEVER.values():
        if (number := numbers[machine.column]) is not None:
            program += [_instruction(_JUMP_EQUAL, number, 0, 1), _answer(errno.EPERM)]
    for name, numbers in _ON_ITSELF_ONLY.items():
        allowed = (process, 0) if name == "prlimit64" else (process,)
        program += _only_with(numbers[machine.column], allowed)
    # Its flags lie in memory, where a filter cannot look; the C library falls back to clone.
    program += [
        _instruction(_JUMP_EQUAL, _CLONE3[machine.column], 0, 1),
        _answer(errno.ENOSYS),
        _instruction(_JUMP_EQUAL, _CLONE[machine.column], 0, 4),
        _instruction(_LOAD_WORD, _FIRST_ARGUMENT_AT),
        _instruction(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0),
        _answer(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ALLOW),
    ]
    return program


def _only_with(number: int, allowed: tuple[int, ...]) -> list[bytes]:
    """Return the part that lets call `number` pass with one of `allowed` as its first argument."""
    compared = [
        _instruction(_JUMP_EQUAL, value, len(allowed) - index, 0)
        for index, value in enumerate(allowed)
    ]
    rest = [
        _instruction(_LOAD_WORD, _FIRST_ARGUMENT_AT),
        *compared,
        _answer(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    return [_instruction(_JUMP_EQUAL, number, 0, len(rest)), *rest]


def _answer(error: int) -> bytes:
    return _instruction(_RETURN, _ANSWER_ERROR | error)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return a `struct sock_filter`; the jumps count the instructions that are passed over."""
    return struct.pack("HBBI", code, if_true, if_false, value)
