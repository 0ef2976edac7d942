"""Closes the network of a Python process, this machine's own addresses excepted.

Run as a script it becomes a Jupyter kernel whose network is closed before the first cell: the kernel of
`make walkthrough`. The tests close their own process with it as well.
"""

import errno
import ipaddress
import sys
from typing import Any

_BY_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}  # (socket, address)
_BY_HOST = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}  # (host, …)


class NetworkClosed(OSError):
    """A socket or a name look-up that would leave this machine."""

    def __init__(self, event: str, target: object) -> None:
        super().__init__(errno.ENETUNREACH, f"network closed: {event} to {target!r}; only loopback is open")


def close_network() -> None:
    """Makes every later attempt to leave this machine raise `NetworkClosed`, until the process ends.

    An audit hook sits below every Python package, `_socket` included, and cannot be taken off again.
    Native code that opens sockets of its own is not seen.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _BY_ADDRESS:
        target = arguments[1]
        if isinstance(target, tuple) and not _is_loopback(target[0]):  # AF_UNIX has a path or None instead
            raise NetworkClosed(event, target)
    elif event in _BY_HOST and not _is_loopback(arguments[0]):
        raise NetworkClosed(event, arguments[0])


def _is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    close_network()
    sys.path.pop(0)  # the kernel sees what JupyterLab's would see, not this folder
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
