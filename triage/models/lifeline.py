"""A pipe that ends a host with its worker, whatever the host is doing.

The worker holds the pipe's one end and says nothing. When it dies the kernel closes that end and
sends the host SIGKILL, also where a thread of the host's own would no longer be scheduled, because
native code holds Python's lock. PR_SET_PDEATHSIG is not for this: its signal comes when the thread
ends that started the host.
"""

from __future__ import annotations

import fcntl
import os
import signal

_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)  # Linux; Python names it from 3.11 on where it is there


def end_with(descriptor: int) -> None:
    """Let the kernel end this process once the other end of the pipe `descriptor` is closed."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
    os.set_blocking(descriptor, False)
    try:
        gone = os.read(descriptor, 1) == b""
    except BlockingIOError:
        return
    if gone:  # before the signal was asked for
        os._exit(0)
