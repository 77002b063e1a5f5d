"""The listening socket: small answers leave at once, and a silent peer is not waited for."""

from __future__ import annotations

import socket
from socketserver import BaseServer
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer


class StorageServer(ThreadedAssociationServer):
    """Pynetdicom's association server, with socket options for many small messages."""

    request_queue_size = 128
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection.

        TCP_NODELAY: a C-STORE response is one small segment; Nagle's algorithm would hold it back
        until the sender's delayed acknowledgement, 40 ms for each image.
        """
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Without it, a peer that stops in the middle of a PDU would hold its thread for ever.
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def shutdown(self) -> None:
        """Stop listening."""
        # Pynetdicom's own also takes the server out of a list that make_server() did not put it in.
        BaseServer.shutdown(self)
        self.server_close()
