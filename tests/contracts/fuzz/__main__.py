"""The long run, which stops by itself: after so many inputs, or so many minutes."""

import argparse
import faulthandler
import logging
import sys
import tempfile
from pathlib import Path

import torch

from tests.contracts.fuzz.readers import READERS
from tests.contracts.fuzz.run import Bench, fuzz

parser = argparse.ArgumentParser(prog="python -m tests.contracts.fuzz", description=__doc__)
parser.add_argument("--inputs", type=int, default=100_000, help="in all")
parser.add_argument("--minutes", type=float, default=10.0, help="in all")
parser.add_argument("--seed", type=int, default=0, help="another one damages otherwise")
parser.add_argument("--reader", action="append", help="only this one; may be given again")
parser.add_argument("--keep", type=Path, help="a folder for the files that a reader failed on")
asked = parser.parse_args()

torch.set_num_threads(1)
logging.disable()  # nibabel's, of headers that it mends
faulthandler.dump_traceback_later(60 * asked.minutes + 120, exit=True)  # a hang in C hears no signal
with tempfile.TemporaryDirectory() as folder:
    chosen = [reader for reader in READERS if not asked.reader or reader.name in asked.reader]
    benches = [Bench(reader, Path(folder, str(number))) for number, reader in enumerate(chosen)]
    tallies = fuzz(benches, asked.inputs, 60 * asked.minutes, asked.seed, asked.keep)

print(f"{'reader':16} {'inputs':>7} {'accepted':>9} {'refused':>8} {'failures':>9} {'most MB more':>13}")
for name, one in tallies.items():
    counts = f"{one.inputs:7} {one.accepted:9} {one.refused:8} {len(one.failures):9}"
    print(f"{name:16} {counts} {one.megabytes:13.1f}")
failures = [(name, failure) for name, one in tallies.items() for failure in one.failures]
for name, (number, file, words) in failures[:200]:
    print(f"\n{name}, input {number}, {file}: {words}")
sys.exit(bool(failures))
