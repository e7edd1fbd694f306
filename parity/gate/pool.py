"""Comparisons in several processes: each imports the frameworks once and then takes one pair after the other.

A process belongs to one `Room`: what cannot be changed in it later. Keras 3 stays on the backend that it was imported
with, rounding on the threads that it was started with, and the user's own classes and modules stay known; so pairs that
differ in any of these never share a process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.garbage import own_process
from parity.report import Report

__all__ = ["Done", "Room", "Task", "processors", "run_all"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Room:
    """What pairs must have in common to share a process.

    Attributes:
        backend: of Keras 3.
        code: the user's own code: the file of custom classes and the folders of modules that build models.
        environment: variables that are set before anything is imported.
    """

    backend: str = ""
    code: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Room:
        """The room of a comparison with these options."""
        code = [str(options[key]) for key in ("custom_objects",) if options.get(key)]
        for key in ("ref", "keras", "keras_arch"):
            head, _, name = str(options.get(key) or "").rpartition(":")
            if name.isidentifier() and head:
                code.append(str(Path(head).parent.resolve()) if head.endswith(".py") else head)
        code += [key for key in ("trust",) if options.get(key)]
        backend = str(options.get("backend") or "")
        return Room(backend, tuple(code), tuple(sorted((environment or {}).items())))


@dataclass(frozen=True)
class Task:
    """A comparison: keywords of `parity.session.check`, where it may run, and what to call it."""

    name: str
    options: Mapping[str, Any]
    room: Room


@dataclass(frozen=True)
class Done:
    """What became of a task: its report, or one line on why there is none; and how long it took in seconds."""

    report: Report | None
    error: str = ""
    seconds: float = 0.0


def processors() -> int:
    """How many this process may use."""
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(tasks: Sequence[Task], jobs: int, progress: Progress | None = None) -> Iterator[tuple[int, Done]]:
    """Run the tasks, and yield what becomes of each as it ends: its place in `tasks`, and the result.

    Args:
        tasks: what to run.
        jobs: how many processes at most; 0 runs them here, one after the other, without their rooms.
        progress: called as progress(what, done, total).
    """
    tell = progress or (lambda *_: None)
    if jobs == 0:
        for number, task in enumerate(tasks):
            yield number, _compare(task, tell)
        return
    threads = max(1, processors() // max(1, min(jobs, len(tasks))))
    crew = _Crew(tasks, jobs, threads, tell)
    try:
        yield from crew.results()
    finally:
        crew.dismiss()


@dataclass(eq=False)
class _Worker:
    process: Any
    line: Connection
    room: Room
    task: int = -1


class _Crew:
    """The processes, and who does what."""

    def __init__(self, tasks: Sequence[Task], jobs: int, threads: int, progress: Progress) -> None:
        self.tasks, self.jobs, self.threads, self.progress = tasks, jobs, threads, progress
        self.context = multiprocessing.get_context("spawn")
        # Pairs of one room follow each other, so that few processes have to be started anew.
        rooms = list(dict.fromkeys(task.room for task in tasks))
        self.waiting = sorted(range(len(tasks)), key=lambda i: rooms.index(tasks[i].room))
        self.workers: list[_Worker] = []
        self.share = [0.0] * len(tasks)

    def results(self) -> Iterator[tuple[int, Done]]:
        """As `run_all`."""
        while self.waiting or any(worker.task >= 0 for worker in self.workers):
            self._assign()
            busy = [worker for worker in self.workers if worker.task >= 0]
            ready = set(wait([worker.line for worker in busy]))
            for worker in busy:
                if worker.line in ready:
                    done = self._hear(worker)
                    if done is not None:
                        number, worker.task = worker.task, -1
                        self.share[number] = 1.0
                        self._tell("")
                        yield number, done

    def dismiss(self) -> None:
        """End every process that was started here, at once."""
        for worker in self.workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()

    def _assign(self) -> None:
        """Give every idle worker a task of its room; start or replace workers where none fits."""
        for worker in [w for w in self.workers if w.task < 0]:
            own = next((i for i in self.waiting if self.tasks[i].room == worker.room), None)
            if own is None:
                self._release(worker)
            else:
                self._give(worker, own)
        while self.waiting and len(self.workers) < self.jobs:
            self._give(self._start(self.tasks[self.waiting[0]].room), self.waiting[0])

    def _start(self, room: Room) -> _Worker:
        mine, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, room, self.threads), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, mine, room)
        self.workers.append(worker)
        return worker

    def _give(self, worker: _Worker, number: int) -> None:
        self.waiting.remove(number)
        worker.task = number
        with contextlib.suppress(OSError):  # it has died; that is heard next
            worker.line.send(self.tasks[number])

    def _release(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        with contextlib.suppress(OSError):
            worker.line.send(None)
        worker.line.close()
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.terminate()

    def _hear(self, worker: _Worker) -> Done | None:
        """What a worker says: how far it is, or that it is done."""
        try:
            said = worker.line.recv()
        except (EOFError, OSError):
            self.workers.remove(worker)
            worker.process.join()
            code = worker.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            return Done(None, f"the process that compared it ended {how}; was there enough memory?")
        if isinstance(said, Done):
            return said
        what, share = said
        self.share[worker.task] = share
        self._tell(f"{self.tasks[worker.task].name}: {what}")
        return None

    def _tell(self, what: str) -> None:
        total = 100 * len(self.tasks)
        self.progress(what or "comparing", int(100 * sum(self.share)), total)


# ---------------------------------------------------------------------------------------------------------- in a worker


def _work(line: Connection, room: Room, threads: int) -> None:
    """A worker's life: its environment first, then task after task until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C is the parent's to handle; it ends its workers
    own_process()
    os.environ.update(room.environment)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(EOFError, OSError):
        while (task := line.recv()) is not None:
            line.send(_compare(task, _sender(line)))
            _forget()


def _sender(line: Connection) -> Progress:
    """Tells the parent how far a comparison is, a few times a second."""
    last = [0.0]

    def progress(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] > 0.1:
            last[0] = now
            line.send((what, min(0.99, done / total if total else 0.0)))

    return progress


def _compare(task: Task, progress: Progress) -> Done:
    import warnings

    from parity.session import check

    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = check(**task.options, progress=progress)
        return Done(report, "", time.monotonic() - begun)
    except ParityError as error:
        return Done(None, str(error), time.monotonic() - begun)
    except MemoryError:
        return Done(None, "out of memory; try a smaller batch, or fewer --jobs", time.monotonic() - begun)
    except Exception as error:
        where = " ".join(f"{type(error).__name__}: {error}".split())
        return Done(None, f"an error inside parity, please report it ({where})", time.monotonic() - begun)


def _forget() -> None:
    """Let go of a pair's models, and of the counters by which Keras names its layers: names do not depend on order."""
    for name in ("keras", "tf_keras"):
        backend = getattr(sys.modules.get(name), "backend", None)
        clear = getattr(backend, "clear_session", None)
        if callable(clear):
            clear()
