"""Run a table: what of it is not done yet, a line in its file for each finished training, then table and picture."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from attribguard.demo.train import reproducible
from attribguard.device import as_device
from attribguard.errors import DataError, RangeError
from attribguard.reproduce.jobs import Job, Record, count_jobs, index, known_jobs
from attribguard.reproduce.machine import describe_machine, versions
from attribguard.reproduce.pictures import pictures_of
from attribguard.reproduce.recipe import Recipe, Row, Run
from attribguard.reproduce.records import append, make_record, read
from attribguard.reproduce.table import section
from attribguard.whole_files import check_writable, cut_half_line, write_files

__all__ = ["Watch", "reproduce"]


class Watch:
    """What is told of a run while it goes on; this one listens to nothing."""

    def job(self, title: str, done: int, total: int) -> None:
        """A training begins, or has ended.

        Args:
            title: what is trained.
            done: trainings that are finished.
            total: trainings of the whole table.
        """

    def step(self, done: int, total: int) -> None:
        """A training moves on.

        Args:
            done: its steps that are done.
            total: its steps.
        """


def reproduce(
    recipe: Recipe,
    out: Path,
    *,
    data: Path | None = None,
    size: str = "default",
    seeds: int | None = None,
    device: str = "cpu",
    jobs: int = 1,
    watch: Watch | None = None,
) -> list[Path]:
    """Run what is left of a table, and write it.

    Every finished training is one line in ``NAME.jsonl`` at once. Started again after an interruption, or with more
    seeds, the command does what is missing and nothing twice. Under ``torchrun`` each process takes every so-manieth
    row of the table; all append to one file, and the last to end writes the whole table.

    Args:
        recipe: the table.
        out: folder to write to, made if need be.
        data: folder of the data set's files, for the tables that need or take one. A table that draws its images
            otherwise is then called ``NAME-files``.
        size: ``"default"``, ``"quick"`` or ``"full"``.
        seeds: how many, from 0 on; the size's own number by default.
        device: where to train, as torch names it.
        jobs: trainings at once, each in a process of its own.
        watch: is told what goes on.

    Returns:
        The files: rows, table and pictures.

    Raises:
        RangeError: if a number is too small, or the size or device unknown.
        DataError: if the data are missing or not asked for, or the folder cannot be written to.
    """
    rows = recipe.rows_of(size)
    seeds = recipe.sizes[size].seeds if seeds is None else seeds
    for name, number in (("seeds", seeds), ("jobs", jobs)):
        if number < 1:
            raise RangeError(got=f"{name}={number}", needed="1 or more", fix="give another number")
    place = as_device(device)
    if recipe.needs_data and data is None:
        raise DataError(got=f"{recipe.name} without data", needed=recipe.needs_data, fix="name it: --data DIR")
    if data is not None and not recipe.needs_data:
        if not recipe.takes_data:
            raise DataError(got=f"data for {recipe.name}", needed="none: it is drawn", fix="leave --data out")
        recipe = recipe.on_data()
    files = [out / f"{recipe.name}.{ending}" for ending in ("jsonl", "md", "png")]
    check_writable(out, [file.name for file in files])
    cut_half_line(files[0])
    read(files[0])  # a file that is another's is refused before anything is trained
    mine, plan = _share(recipe, rows), recipe.sizes[size]
    watch = watch or Watch()
    total = count_jobs(recipe, plan, mine, seeds)

    def left() -> tuple[list[Job], int]:
        """What can be done now, and how much is done."""
        done = index(read(files[0]))
        known = known_jobs(recipe, plan, mine, seeds, done)
        jobs = [job for job in known if job.key not in done]
        return jobs, len(known) - len(jobs)

    def keep(record: Record) -> None:
        out.mkdir(parents=True, exist_ok=True)
        append(files[0], record)

    run = Run({}, 0, True, data, place)
    if jobs == 1:
        _one_by_one(recipe, run, left, keep, watch, total)
    else:
        _side_by_side(recipe, run, left, keep, watch, total, jobs)
    records = read(files[0])
    pictures = pictures_of(recipe, size, seeds, records, recipe.name)
    text = f"# {recipe.title}\n\n" + section(recipe, size, seeds, records, list(pictures))
    write_files(out, {files[1].name: text.encode(), **pictures})
    return [*files[:2], *(out / name for name in pictures)]


def _one_by_one(
    recipe: Recipe,
    run: Run,
    left: Callable[[], tuple[list[Job], int]],
    keep: Callable[[Record], None],
    watch: Watch,
    total: int,
) -> None:
    while True:
        jobs, done = left()
        if not jobs:
            break
        watch.job(_title(jobs[0]), done, total)
        keep(_train(recipe, jobs[0], replace(run, on_step=watch.step)))
    watch.job("done", total, total)


def _side_by_side(
    recipe: Recipe,
    run: Run,
    left: Callable[[], tuple[list[Job], int]],
    keep: Callable[[Record], None],
    watch: Watch,
    total: int,
    workers: int,
) -> None:
    # Spawned and not forked: a forked process inherits torch's threads in whatever state they are.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        flying: dict[str, Future[Record]] = {}
        try:
            while True:
                jobs, done = left()
                for job in jobs:
                    if job.key not in flying and len(flying) < workers:
                        flying[job.key] = pool.submit(_train, recipe, job, run)
                        watch.job(_title(job), done, total)
                if not flying:
                    break
                finished, _ = wait(flying.values(), return_when=FIRST_COMPLETED)
                for key in [key for key, future in flying.items() if future in finished]:
                    keep(flying.pop(key).result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    watch.job("done", total, total)


def _train(recipe: Recipe, job: Job, run: Run) -> Record:
    started = time.perf_counter()
    with reproducible(job.seed):
        if run.device.type == "cuda":
            torch.cuda.manual_seed_all(job.seed)
        outcome = recipe.train(replace(run, settings=job.settings, seed=job.seed, final=job.final))
    seconds = time.perf_counter() - started
    return make_record(job, outcome, seconds, describe_machine(run.device), versions())


def _title(job: Job) -> str:
    return f"{job.row}, seed {job.seed}" if job.final else f"{job.row}, search"


def _share(recipe: Recipe, rows: list[Row], environment: Mapping[str, str] = os.environ) -> list[Row]:
    """The rows of this process under torchrun; a row that takes over another's choice goes where that one goes."""
    rank, world = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    owners = [row.name for row in recipe.rows if row.chosen_by is None]
    return [row for row in rows if owners.index(row.chosen_by or row.name) % world == rank]
