"""Run the benchmark and print a table of ratios; no time is judged."""

import argparse
import platform
import statistics

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import guarded_step

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=7, help="counted rounds, every contestant once in each")
rounds = parser.parse_args().rounds

torch.set_num_threads(1)
seconds = guarded_step.measure(rounds)
plain = seconds["plain step"]
title = f"ResNet-18, {guarded_step.SIZE} x {guarded_step.SIZE}, batch {guarded_step.BATCH}, {rounds} rounds"
caption = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one CPU thread"
table = Table("", "median s", "x plain step", "lowest", "highest", title=title, caption=caption)
for name, times in seconds.items():
    # Round by round, so that a slow moment of the machine hits both sides of a ratio.
    ratios = [time / base for time, base in zip(times, plain, strict=True)]
    figures = (statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))
    table.add_row(name, *(f"{figure:.2f}" for figure in figures))
Console().print(table)
