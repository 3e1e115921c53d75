"""The socket through which a running QEMU guest is read."""

from __future__ import annotations

import socket
import struct

from inspector.errors import TargetError

PATIENCE = 10.0
"""Seconds that a QEMU may take to answer."""


def qmp_socket(address: str) -> socket.socket:
    """A connection to a QMP server that has greeted; the greeting is left for drgn to read.

    Args:
        address: Path of the socket, or host:port.

    Raises:
        TargetError: No server listens there, or it is no QMP server, or it is busy with another client.
    """
    todo = "Start QEMU with -qmp unix:PATH,server=on,wait=off and name that PATH"
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit() and not address.startswith(("/", ".")):
            connection = socket.create_connection((host or "localhost", int(port)), PATIENCE)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            connection.connect(address)
        greeting = connection.recv(256, socket.MSG_PEEK)
    except FileNotFoundError:
        raise TargetError("no such QMP socket", address, todo) from None
    except TimeoutError:
        raise TargetError("the socket does not answer", address, f"Another client may be connected. {todo}") from None
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"the QMP socket cannot be used ({reason})", address, todo) from None
    if b'"QMP"' not in greeting:
        connection.close()
        raise TargetError("this socket is no QMP server", address, todo)
    connection.settimeout(None)
    # drgn blocks on this socket: a QEMU that stops answering must end in an error, not in a hang.
    patience = struct.pack("@ll", int(PATIENCE), int(PATIENCE % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    return connection
