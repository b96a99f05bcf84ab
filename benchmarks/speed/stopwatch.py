"""One command from start to end: seconds, seconds to its first byte on a terminal, peak memory, exit code.

A program of its own with nothing but the standard library, because Linux counts the memory of the process that starts a
command into the command's peak: ``echo ORDER | python -I -S stopwatch.py``, and one JSON document comes out.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from typing import Any, BinaryIO

LINES, COLUMNS = 40, 120
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; kilobytes elsewhere


def main() -> None:
    """Read an order, ``{"command": [...], "cwd": ..., "log": ..., "terminal": bool}``, and print what was measured."""
    order = json.load(sys.stdin)
    with open(order["log"], "wb") as log:  # noqa: PTH123
        measured = measure(order["command"], order["cwd"], log, terminal=order["terminal"])
    print(json.dumps(measured))


def measure(command: list[str], cwd: str, log: BinaryIO, *, terminal: bool) -> dict[str, Any]:
    """``seconds`` and ``first`` (None where nothing was printed), ``cpu`` seconds, ``peak`` bytes, ``code``.

    What the command prints goes to ``log``, through a terminal of 40x120 characters or directly; there is no ``first``
    then.
    """
    first = None
    if terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        stream: Any = slave
    else:
        stream = log
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
    )
    try:
        if terminal:
            os.close(slave)
            first = _copied(master, log, begun)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": seconds,
        "first": first,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * _RSS_UNIT,
        "code": process.returncode,
    }


def _copied(master: int, log: BinaryIO, begun: float) -> float | None:
    """Read a terminal until its last user has left; the seconds after ``begun`` of the first byte, if any came."""
    first = None
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # Linux: nobody has the other end open
            data = b""
        if not data:
            os.close(master)
            return first
        first = time.perf_counter() - begun if first is None else first
        log.write(data)


if __name__ == "__main__":
    main()
