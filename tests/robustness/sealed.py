"""Run a program in a process that cannot reach the network, start another or, optionally, write a file.

There are two nets, because each has holes.  The kernel kills the process at the system call (a seccomp
filter, and ``RLIMIT_FSIZE`` for writing): this catches onnxruntime, FAISS and the tokenizers, whose calls
Python does not see.  Python's audit events record what Python code did, with its arguments.

    python -m tests.robustness.sealed PROGRAM [ARGUMENT...]

runs the Python file PROGRAM and prints, as its last line, the audit events, as JSON.
"""

import ctypes
import json
import os
import platform
import resource
import runpy
import signal
import struct
import sys
from typing import Any

# The kernel's AUDIT_ARCH of a machine, and its numbers of the relevant system calls.
_MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "clone": 56, "fork": 57, "vfork": 58, "execve": 59}),
    "aarch64": (0xC00000B7, {"socket": 198, "clone": 220, "execve": 221}),
}
_CLONE3, _IO_URING_SETUP = 435, 425  # the same on every machine; io_uring can open sockets, too
_AF_UNIX, _CLONE_THREAD, _ENOSYS = 1, 0x10000, 38
SUPPORTED = sys.platform == "linux" and platform.machine() in _MACHINES

_WATCHED = ("socket.", "urllib.", "ftplib.", "http.", "smtplib.", "subprocess.", "webbrowser.", "pickle.")
_WATCHED += ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "tempfile.", "shutil.")
_WATCHED += ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def forbid_calls() -> None:
    """Let the kernel kill this process with SIGSYS at any non-Unix socket, and at any new process.

    A Unix socket does not leave the machine: the C library looks up a user's home through one.
    """
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06  # of classic BPF, over struct seccomp_data
    kill, allow, absent = ((end, 0, 0, verdict) for verdict in (0x80000000, 0x7FFF0000, 0x50000 | _ENOSYS))
    architecture, calls = _MACHINES[platform.machine()]
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), kill, (load, 0, 0, 0)]
    # clone3 hides its flags from a filter; where it is absent, the C library takes clone
    program += [(equal, 0, 1, _CLONE3), absent, (equal, 0, 1, _IO_URING_SETUP), kill]
    for name in sorted(calls.keys() - {"socket", "clone"}):
        program += [(equal, 0, 1, calls[name]), kill]
    program += [(equal, 0, 4, calls["clone"]), (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), kill, allow]
    program += [(equal, 0, 3, calls["socket"]), (load, 0, 0, 16), (equal, 1, 0, _AF_UNIX), kill, allow]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    described = struct.pack("HP", len(program), ctypes.addressof(code))
    libc, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    no_new_privileges = libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero)
    if no_new_privileges or libc.prctl(22, ctypes.c_ulong(2), described, zero, zero):
        raise OSError(ctypes.get_errno(), "the kernel refused the seccomp filter")


def forbid_writes() -> None:
    """Let the kernel kill this process with SIGXFSZ when it writes a byte to a regular file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def watch(seen: list[str]) -> None:
    """Append every audit event of connecting, unpickling or writing to ``seen``, with its arguments."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_WATCHED):
            seen.append(f"{event} {arguments[:2]!r}")
        elif event == "open" and not isinstance(arguments[0], int) and arguments[2] & _WRITING:
            seen.append(f"open {arguments[0]!r}")

    sys.addaudithook(hook)


def main() -> None:
    """Seal this process, run the program, print the events."""
    seen: list[str] = []
    if SUPPORTED:
        forbid_calls()
    if os.environ.get("SEALED_WRITES") == "forbidden":
        forbid_writes()
    watch(seen)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
