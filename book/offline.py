"""Run a command with no network but loopback: python book/offline.py COMMAND ...

Linux only, in a network namespace of its own, where the machine allows one without privileges.
"""
from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys

SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x41  # SIOCSIFFLAGS; IFF_UP | IFF_RUNNING


def available() -> bool:
    """Whether this machine lets us make a network namespace."""
    probe = ["unshare", "-rn", "true"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


def command(*parts: str) -> list[str]:
    """The command that runs `parts` without a network."""
    return ["unshare", "-rn", sys.executable, __file__, *parts]


def _loopback_up() -> None:
    """A new namespace has its loopback device switched off, and Jupyter talks to its kernels through it."""
    import fcntl  # not on Windows, where this file is imported too

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, SET_FLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))


if __name__ == "__main__":
    _loopback_up()
    os.execvp(sys.argv[1], sys.argv[1:])
