"""Where the runs of a study take place: one after the other in this process, side by side, or on a cluster."""

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import torch
from tqdm import tqdm

from cancernet.errors import InputError, one_line
from scripts.studies.apart import run_apart
from scripts.studies.trials import CANCERNET, Command, Trial, run_command


class Work(Protocol):
    """What an engine completes: a trial, whether all of it is there, and what completes it (see `trials.Job`)."""

    @property
    def trial(self) -> Trial: ...  # noqa: D102

    def is_complete(self) -> bool: ...  # noqa: D102

    def complete(self, command: Command) -> None: ...  # noqa: D102


Engine = Callable[[Sequence[Work]], None]
"""Completes jobs; raises `InputError` where one fails."""

LOG = "output.txt"
"""File in the folder of a trial: what its processes printed."""
GPUS = "CUDA_VISIBLE_DEVICES"
CONNECTING = 10
"""Seconds that a scheduler has to answer."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose an engine."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each in a process of its own with one thread, or OMP_NUM_THREADS (1: in this process)",
    )
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="Dask scheduler whose workers do the runs, in the same folders"
    )


def choose_engine(jobs: int, scheduler: str | None) -> Engine:
    """Return the engine that the options name.

    Raises:
        InputError: There is none such, or what it needs is not installed.
    """
    if scheduler is not None:
        if jobs != 1:
            raise InputError(
                "--jobs and --scheduler: give one of them; the cluster's workers say how many run at a time"
            )
        return partial(run_on_cluster, address=scheduler)
    if jobs < 1:
        raise InputError(f"--jobs: expected 1 or more, got {jobs}")
    return run_here if jobs == 1 else partial(run_side_by_side, count=jobs)


def run_here(jobs: Sequence[Work]) -> None:
    """Complete one job after the other in this process; the first that fails ends the study."""
    for job in jobs:
        job.complete(run_command)


def run_side_by_side(jobs: Sequence[Work], count: int) -> None:
    """Complete up to `count` jobs at a time on this machine; where it has several GPUs, each job has one to itself."""
    stop = threading.Event()
    places: SimpleQueue[dict[str, str]] = SimpleQueue()
    for _, gpu in zip(range(count), cycle(_gpus() or [None]), strict=False):
        places.put({} if gpu is None else {GPUS: gpu})

    def run(job: Work) -> None:
        place = places.get()
        try:
            _complete_apart(job, lambda: not stop.is_set(), None, **place)
        finally:
            places.put(place)

    with ThreadPoolExecutor(count) as pool:
        _follow(jobs, lambda job: pool.submit(run, job), stop.set)


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(GPUS)
    return [str(number) for number in range(torch.cuda.device_count())] if named is None else named.split(",")


def run_on_cluster(jobs: Sequence[Work], address: str) -> None:
    """Complete jobs on the workers of a Dask scheduler, which see the same files under the same names."""
    try:
        from distributed import Client
        from distributed.comm import connect
    except ImportError as error:
        raise InputError(f"--scheduler: needs Dask ({one_line(error)}); run `pip install '.[cluster]'`") from error

    async def greet() -> None:
        await (await connect(address, timeout=CONNECTING)).close()

    try:
        asyncio.run(greet())  # ahead of the client, which leaves threads behind where it finds nobody
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no answer ({one_line(error)}); start `dask scheduler` there"
        ) from error
    with Client(address, set_as_default=False) as client:
        if not client.nthreads():
            print(f"{address} has no workers yet: the runs wait for one", file=sys.stderr, flush=True)
        # Not pure: a job of the same name is never taken for one that has run.
        _follow(jobs, partial(client.get_executor(pure=False).submit, _complete_on_worker, folder=Path.cwd()))


def _follow(
    jobs: Sequence[Work], submit: Callable[[Work], Future[None]], end: Callable[[], object] = lambda: None
) -> None:
    """Submit what is not complete, show the progress and report each failure when it happens."""
    missing = [job for job in jobs if not job.is_complete()]
    futures = {submit(job): job.trial.folder for job in missing}
    failed = {}
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="runs", unit="run") as bar:
        try:
            for future in as_completed(futures):
                error = "given up by the scheduler" if future.cancelled() else future.exception()
                if error is not None:
                    failed[futures[future]] = one_line(error)
                    bar.write(f"{futures[future]}: failed; the others go on", file=sys.stderr)
                bar.update()
        except BaseException:
            bar.write("ending the runs under way; the same command resumes them", file=sys.stderr)
            for future in futures:
                future.cancel()
            end()
            raise
    if failed:
        raise InputError("; ".join(f"{folder}: {error}" for folder, error in failed.items()))


def _complete_apart(job: Work, wanted: Callable[[], bool], folder: Path | None = None, **variables: str) -> None:
    def command(arguments: list[str], module: str = CANCERNET) -> None:
        run_apart(arguments, job.trial.folder / LOG, wanted, folder, module, **variables)

    job.complete(command)


def _complete_on_worker(job: Work, folder: Path) -> None:
    """Complete a job in a worker of the cluster; its commands end when the scheduler or the worker gives it up."""
    from distributed import Reschedule, get_worker
    from distributed.worker import WORKER_ANY_RUNNING

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status in WORKER_ANY_RUNNING and task is not None and task.state != "cancelled"

    try:
        _complete_apart(job, wanted, folder)
    except InputError as error:
        if not wanted():
            raise Reschedule from error  # the job did not fail: another worker does it again
        raise
