"""A RIS that answers as a test tells it to, over a real socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Self

from triage.hl7.acknowledgement import acknowledge
from triage.hl7.message import Message, parse_message, parse_moment
from triage.hl7.mllp import END, framed, unframed

Answer = Callable[[Message], bytes | None]
"""What is written for a message, frame and all; None closes the connection."""


def said(code: str, *, control_id: str = "", text: str = "") -> Answer:
    """Answer with this code, to this control id or that of the message."""

    def answer(message: Message) -> bytes:
        whole = acknowledge(message, control_id="1", at=parse_moment("20260301"))
        changed = whole.replace(b"\rMSA|AA|", f"\rMSA|{code}|".encode())
        if control_id:
            changed = changed.replace(message.control_id.encode(), control_id.encode())
        return framed(changed[:-1] + f"|{text}\r".encode())

    return answer


class Ris:
    """Listens, keeps what came, and answers by a list; the last answer goes on for ever."""

    def __init__(self, answers: Sequence[Answer], context: ssl.SSLContext | None = None) -> None:
        self._answers = list(answers)
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.messages: list[Message] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()
        self._thread.join()

    def drop(self) -> None:
        """Close all connections, as a firewall does with idle ones."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        with contextlib.suppress(OSError), connection:
            while part := connection.recv(65536):
                received += part
                while END in received:
                    block, _, received = received.partition(END)
                    message = parse_message(unframed(block + END) or b"")
                    self.messages.append(message)
                    answer = self._next()(message)
                    if answer is None:
                        return
                    connection.sendall(answer)

    def _next(self) -> Answer:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
