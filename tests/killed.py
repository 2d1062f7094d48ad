"""Processes that are killed: forked, so that a life costs no import, and killed by a real SIGKILL."""

import os
import signal
import time
import traceback
from pathlib import Path


def start(work):
    """Run `work(tell)` in a forked process, where each `tell()` is seen by the parent.

    Gives the process's number and a function that waits until it has told the next time, and says whether it did
    before its end.
    """
    listen, speak = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(listen)
            work(lambda: os.write(speak, b"."))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(speak)
    return pid, lambda: os.read(listen, 1) == b"."


def finish(pid):
    """Wait for its end: its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid):
    """Kill it, and say how it ended."""
    os.kill(pid, signal.SIGKILL)
    return finish(pid)


def stall_before_the_rename(tell):
    """From now on this process stops where a file is complete and not yet in its place."""

    def stalling(*args):
        tell()
        time.sleep(600)

    os.replace = stalling


def stall_in_the_middle_of_writing(tell):
    """From now on this process stops where it has written half of what it writes next, aside or behind other lines."""
    real = Path.open

    def stalling(path, mode="r", **options):
        file = real(path, mode, **options)
        return _HalfWritten(file, tell) if mode in ("wb", "ab") else file

    Path.open = stalling


class _HalfWritten:
    def __init__(self, file, tell):
        self.file, self.tell = file, tell

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def writelines(self, parts):
        self.write(b"".join(parts))

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.tell()
        time.sleep(600)
