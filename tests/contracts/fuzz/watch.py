"""What one reading did: its outcome, whether it came to an end, its memory, and what it opened or ran."""

import os
import resource
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

from attribguard.errors import AttribGuardError

SECONDS, MEGABYTES = 20, 512
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "socket.connect")


class HangError(BaseException):
    """A reading that takes too long. No `except Exception` may swallow it."""


class _Auditor:
    """Hears of every file that is opened and every program that is started; Python lets no such ear be taken off."""

    def __init__(self):
        self.outside, self.heard, self._installed = None, [], False

    def listen(self, outside):
        self.outside, self.heard = os.fspath(outside), []
        if not self._installed:
            sys.addaudithook(self._hear)
            self._installed = True

    def _hear(self, event, args):
        if self.outside is None:
            return
        if event in RUNS:
            self.heard.append(f"{event} {args!r}"[:200])
        elif event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], (str, bytes, os.PathLike)):
            outside, self.outside = self.outside, None  # realpath may not be heard itself
            try:
                if os.path.realpath(os.fsdecode(args[0])).startswith(outside):
                    self.heard.append(f"opened {args[0]!r}")
            except ValueError:
                pass
            finally:
                self.outside = outside

    def stop(self):
        self.outside = None
        return self.heard


_AUDITOR = _Auditor()


def watched(read, folder, outside, seconds=SECONDS, megabytes=MEGABYTES):
    """Read a folder.

    Returns:
        ("accepted", ""), ("refused", the error), or ("failed", why): another exception than the library's, a warning
        out of its code, no end, too much memory, a file opened outside of the folder, or a program run.
    """
    before = resident_peak(reset=True)
    _AUDITOR.listen(outside)
    outcome, words, failure = "accepted", "", ""
    try:
        with _alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module="attribguard")
            read(folder)
    except AttribGuardError as error:
        outcome, words = "refused", str(error)
    except HangError:
        failure = f"no end after {seconds} s of computing"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}\n{_last_lines(error)}"
    finally:
        heard = _AUDITOR.stop()
    grown = (resident_peak() - before) / 2**20
    if heard:
        failure = "; ".join(heard)
    elif grown > megabytes:
        failure = f"{grown:.0f} MB of memory"
    return ("failed", failure, grown) if failure else (outcome, words, grown)


@contextmanager
def _alarm(seconds):
    """Of computing, not of waiting: a busy machine is no hang."""

    def ring(*_):
        raise HangError

    former = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def resident_peak(reset=False):
    """The most memory, in bytes, that this process held in RAM so far; on Linux since it was last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _last_lines(error):
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return "\n".join(places[-6:])
