"""Cut the whole run off from the network by the operating system, including what patched sockets cannot block.

Linux gives a process its own network namespace with only a loopback interface, inherited by its children. So curl_cffi,
pycurl, gRPC's core, Rust clients and child processes cannot reach anything outside.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

from pytest_llmtune.errors import SuiteError

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1


def isolate() -> None:
    """Move this process into its own network namespace.

    Needs no privileges if the system allows user namespaces; the process must be single-threaded.

    Raises:
        SuiteError: the system does not allow it; the message says what may help.
    """
    if sys.platform != "linux":
        raise SuiteError(
            "llmtune_isolate needs Linux; elsewhere run pytest in a container without a network, such as "
            "docker run --network none"
        )
    user, group = os.getuid(), os.getgid()
    if _unshare(_NEW_NETWORK):
        number = _unshare(_NEW_USER | _NEW_NETWORK)
        if number:
            raise SuiteError(
                f"llmtune_isolate: the system refuses a network namespace ({os.strerror(number)}); allow user namespaces "
                "(sysctl kernel.unprivileged_userns_clone=1, or the AppArmor profile), or run: unshare -rn pytest ..."
            )
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _raise_loopback()


def _unshare(flags: int) -> int:
    """Returns 0, or the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(flags) else 0


def _raise_loopback() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
