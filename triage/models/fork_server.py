"""The process that model hosts are forked from: what a host imports is there when it is asked for.

Torch and MONAI take four seconds of a core to import; a fork of a process that has done so takes
10 ms, and shares their memory. It is started as `python -m triage.models.fork_server ORDERS` and
the modules to import, by `triage.models.forked`. It never sees a package: a host confines itself,
as one that was started afresh does, before it opens its own. Only the thread that forks lives on in
the child, so that the confinement holds for all of it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from triage.models import host_process, sandbox

MAXIMUM_ORDER_BYTES = 64 * 1024
DESCRIPTORS_OF_A_HOST = 3
"""Of its channel, its lifeline and what it prints to, in this order."""
STATUS_BYTES = 4
"""An exit status as a signed number in the machine's order of bytes."""


def main(orders: int, modules: Sequence[str]) -> None:
    """Import `modules`, then fork hosts as the worker at the other end of `orders` asks.

    Returns once the worker is gone.
    """
    # Ctrl-C reaches the whole process group; the worker decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page of its parent
    _Server(socket.socket(fileno=orders)).serve()


class _Server:
    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._selector = selectors.DefaultSelector()
        self._selector.register(orders, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: process and its status pipe

    def serve(self) -> None:
        is_wanted = True
        while is_wanted:
            for key, _ in self._selector.select():
                if key.fileobj is self._orders:
                    is_wanted = self._take_order()
                else:
                    self._tell_end(key.fd)

    def _take_order(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(
            self._orders, MAXIMUM_ORDER_BYTES, DESCRIPTORS_OF_A_HOST
        )
        if not data:
            return False
        told, status = os.pipe()
        process = os.fork()
        if process == 0:
            self._let_go()
            os.close(told)
            os.close(status)
            _become_host(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        watched = os.pidfd_open(process)
        self._children[watched] = process, status
        self._selector.register(watched, selectors.EVENT_READ)
        with contextlib.suppress(OSError):  # the worker no longer wants it, and closed its lifeline
            socket.send_fds(self._orders, [str(process).encode()], [watched, told])
        os.close(told)
        return True

    def _tell_end(self, watched: int) -> None:
        self._selector.unregister(watched)
        process, status = self._children.pop(watched)
        os.close(watched)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            os.write(status, code.to_bytes(STATUS_BYTES, sys.byteorder, signed=True))
        os.close(status)

    def _let_go(self) -> None:
        """Close, in a child, what belongs to the server and to the other hosts."""
        self._selector.close()
        self._orders.close()
        for watched, (_, status) in self._children.items():
            os.close(watched)
            os.close(status)


def _become_host(order: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Go on as a started host does; `order` is a `Launch`, see `triage.models.confinement`."""
    code = 1
    try:
        channel, lifeline, printed = descriptors
        os.dup2(printed, sys.stdout.fileno())
        os.dup2(printed, sys.stderr.fileno())
        os.close(printed)
        os.environ.clear()
        os.environ.update(order["environment"])
        tempfile.tempdir = None  # perhaps remembered while something was imported
        _serve(order["policy"], channel, lifeline)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - what a started process would do with it
        traceback.print_exc()
    finally:
        # Not `sys.exit`: the server's frames, which this process has a copy of, must not go on.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(policy: str | None, channel: int, lifeline: int) -> None:
    if policy is None:
        sys.argv[1:] = [str(channel), str(lifeline)]
        host_process.main(channel, lifeline)
    else:
        sys.argv[1:] = [policy, str(channel), str(lifeline)]
        sandbox.main(sys.argv[1:])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
