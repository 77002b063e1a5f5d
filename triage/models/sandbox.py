"""The sandbox of a model host: what a model's process can do at most, whatever its package says.

Started as `python -m triage.models.sandbox POLICY CHANNEL LIFELINE` by `triage.models.starting`, or
entered in a fork. Landlock and the filter of system calls hold for the thread that asks for them
and for what it starts later, and numpy alone starts threads. So a process that is started imports
only the standard library until it is confined; a fork has one thread, whatever its parent had.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from triage.models.landlock import READ, USE_DEVICE, WRITE_FOLDER, landlock_version, restrict_self
from triage.models.seccomp import refuse_system_calls

EXIT_NOT_CONFINED = 78
"""The exit status where a protection is required that this system does not have."""

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_TRUNCATION_SINCE = 3
_MAXIMUM_OPEN_FILES = 4096
_MAXIMUM_TASKS = 4096
_MAXIMUM_FILE_BYTES = 16 << 30
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/sys",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/devices",
    "/proc/modules",
    "/proc/driver",
    "/proc/sys/vm",
)
_DEVICES = ("nvidia*", "nvidia-caps", "dri", "kfd", "null")


@dataclass(frozen=True, slots=True)
class Policy:
    """What one host may see.

    Attributes:
        readable: files and folders that it may read: the package, Python, Triage itself.
        scratch: the folder that it may write to, or "" for none.
        is_required: whether it must not run with a protection missing.
    """

    readable: tuple[str, ...]
    scratch: str = ""
    is_required: bool = False

    def as_json(self) -> str:
        """Return the policy as it travels to the process."""
        return json.dumps(asdict(self))


def enter(policy: Policy) -> tuple[str, ...]:
    """Confine this process for good; return the protections that this system does not have."""
    _be_first_to_go()
    missing = [
        _attempt("new privileges cannot be given up", _give_up_privileges),
        _attempt("the limits of resources cannot be set", _limit_resources),
        _attempt("files are not restricted", lambda: _restrict_files(policy)),
        _attempt("system calls are not restricted", refuse_system_calls),
    ]
    if 0 < landlock_version() < _TRUNCATION_SINCE:
        missing.append("files that may be read can be emptied (Linux before 6.2)")
    return tuple(filter(None, missing))


def main(arguments: Sequence[str]) -> None:
    """Confine this process, then serve the worker; without descriptors, say what is missing."""
    content = json.loads(arguments[0])
    policy = Policy(tuple(content["readable"]), content["scratch"], content["is_required"])
    missing = enter(policy)
    if len(arguments) == 1:
        sys.stdout.write(json.dumps(missing))
        return
    if missing and policy.is_required:
        sys.stderr.write(f"the model host is not confined: {'; '.join(missing)}\n")
        sys.exit(EXIT_NOT_CONFINED)
    from triage.models.host_process import main as serve  # noqa: PLC0415 - confined from here on

    serve(int(arguments[1]), int(arguments[2]))


def _attempt(otherwise: str, protect: Callable[[], None]) -> str:
    try:
        protect()
    except (OSError, ValueError, AttributeError) as error:
        return f"{otherwise} ({error})"
    return ""


def _be_first_to_go() -> None:
    # A model that eats all memory is what the kernel should end, and not the receiver.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _give_up_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    no_capability = (ctypes.c_uint32 * 6)()
    if (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or libc.capset(ctypes.byref(header), ctypes.byref(no_capability)) != 0
    ):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _limit_resources() -> None:
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAXIMUM_OPEN_FILES),
        (resource.RLIMIT_NPROC, _MAXIMUM_TASKS),
        (resource.RLIMIT_FSIZE, _MAXIMUM_FILE_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (lower, lower))


def _restrict_files(policy: Policy) -> None:
    readable = [*_SYSTEM, f"/proc/{os.getpid()}", *policy.readable]
    allowed = [(Path(path), READ) for path in readable]
    allowed += [(path, USE_DEVICE) for name in _DEVICES for path in Path("/dev").glob(name)]
    if policy.scratch:
        allowed.append((Path(policy.scratch), WRITE_FOLDER))
    restrict_self(allowed)


if __name__ == "__main__":
    main(sys.argv[1:])
