"""Runs seeded cases in a worker process, so that hangs, aborts and huge allocations are findings.

A case is a function of a module, `case(random, folder)`: `random` is a `numpy.random.Generator`
seeded by the number of the case, `folder` an empty `pathlib.Path`. It returns a word that says how
it went ("refused", "exported"), which is counted, and raises whatever is a fault. What the library
may raise is said once, by `attempt`.
"""

import collections
import dataclasses
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import traceback
from pathlib import Path

import numpy as np

import keras_seqattn
from keras_seqattn.errors import SeqAttnError

# A case that takes longer hangs.
SECONDS = 10
# The first case of a worker may also import a backend, and make what all cases use.
FIRST_SECONDS = 120
# Models of fuzz cases have some hundred kB of weights: what grows by more than this is no model.
MEMORY_MIB = 512
# Beyond this a case may harm the machine, and fails with MemoryError instead.
_ADDRESS_MIB = 8192
# JAX compiles every operation for every shape, which takes seconds and hundreds of MiB of its own.
COMPILING = {"seconds": 600, "memory_mib": 4096} if os.environ.get("KERAS_BACKEND") == "jax" else {}
_PACKAGE = str(Path(keras_seqattn.__file__).parent)


class Refused(Exception):
    """The library refused something as it should; `attempt` raises it, and the case ends there."""


def attempt(function, *arguments, **settings):
    """Call the library. An error that it may raise becomes `Refused`, any other is a fault.

    Allowed are SeqAttnError, and TypeError or ValueError if the library raises them itself. Every
    message must help: not empty, without a traceback in it, and at most 2,000 characters.
    """
    try:
        return function(*arguments, **settings)
    except (SeqAttnError, TypeError, ValueError) as error:
        _check_is_ours(error)
        text = str(error)
        assert text.strip() and "Traceback" not in text, f"an error without a message: {error!r}"
        assert len(text) <= 2000, f"a message of {len(text)} characters: {text[:300]}"
        raise Refused(text) from error


def _check_is_ours(error):
    if isinstance(error, SeqAttnError):
        return
    raised = traceback.extract_tb(error.__traceback__)[-1]
    if not raised.filename.startswith(_PACKAGE) or "raise " not in (raised.line or ""):
        raise AssertionError(f"raw {error!r}") from error


@dataclasses.dataclass
class Campaign:
    """The cases of one test.

    Args:
        name: str, the test's node id, for the line that replays a case.
        folder: pathlib.Path for the cases' files.
        cases: int, how many to run, or None for the test's short form.
        first: int, the number of the first of them.
        only: int, the number of one case to replay, or None.
    """

    name: str
    folder: Path
    cases: int | None = None
    first: int = 0
    only: int | None = None

    def __call__(
        self, case, short, seconds=SECONDS, memory_mib=MEMORY_MIB, first_seconds=FIRST_SECONDS
    ):
        """Run the cases; fail with every fault, each with the line that replays it.

        Args:
            case: function of a module, `case(random, folder) -> str`.
            short: int, the number of cases where no number is asked for.
            seconds, first_seconds: float, the longest that a case may take, and a worker's first.
            memory_mib: int, the most by which the process may grow in a case.
        """
        numbers = range(self.first, self.first + (self.cases or short))
        numbers = numbers if self.only is None else [self.only]
        outcomes, faults = collections.Counter(), []
        worker = None
        for number in numbers:
            worker = worker or _Worker(case, self.folder, memory_mib)
            outcome, fault = worker.run(number, first_seconds if worker.is_new else seconds)
            outcomes[outcome] += 1
            if fault:
                faults.append(f"{fault.rstrip()}\n  replay: {self._replay(number)}")
            if not worker.is_alive():
                worker = None
        if worker:
            worker.stop()
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        print(f"{self.name}: {len(numbers)} cases: {counts}")
        if faults:
            raise AssertionError(f"{len(faults)} faults in {counts}\n\n" + "\n\n".join(faults))

    def _replay(self, number):
        return f"pytest '{self.name}' --case {number}"


class _Worker:
    """A process that runs one case at a time."""

    def __init__(self, case, folder, memory_mib):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, case.__module__, case.__name__, str(folder), memory_mib)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(FIRST_SECONDS):
            self.stop()
            raise AssertionError("the worker process does not start")
        self._pipe.recv()
        self.is_new = True

    def run(self, number, seconds):
        """The outcome's name, and None or what was wrong."""
        self._pipe.send(number)
        try:
            if self._pipe.poll(seconds):
                outcome, fault = self._pipe.recv()
                # What was refused has prepared nothing.
                self.is_new &= outcome == "refused"
                return outcome, fault
        except (EOFError, ConnectionResetError):
            self._process.join()
            return "aborted", f"the process died with exit code {self._process.exitcode}"
        self.stop()
        return "hung", f"no result after {seconds} s"

    def is_alive(self):
        return self._process.is_alive()

    def stop(self):
        self._process.kill()
        self._process.join()


def _work(pipe, module, name, folder, memory_mib):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    case = getattr(importlib.import_module(module), name)
    limit = _ADDRESS_MIB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    pipe.send("ready")
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(case, number, Path(folder) / str(number), memory_mib))


def _outcome(case, number, folder, memory_mib):
    folder.mkdir()
    before = _peak_mib(reset=True)
    try:
        outcome, fault = case(np.random.default_rng(number), folder) or "passed", None
    except Refused:
        outcome, fault = "refused", None
    except BaseException:  # whatever it is, it is a fault, and the next case must run
        outcome, fault = "failed", traceback.format_exc(limit=-6)
    grown = _peak_mib() - before
    shutil.rmtree(folder, ignore_errors=True)
    if fault is None and grown > memory_mib:
        outcome, fault = "too much memory", f"the case took {grown:.0f} MiB"
    return outcome, fault


def _peak_mib(reset=False):
    """The most memory that this process has held, since the last reset where Linux can do that."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
