"""Measure the library beside its peers, in the same run: ``python -m benchmarks``.

Prints a table of ratios. One thread, contestants in turn; a peer that is not installed is a dash
(`pip install grad-cam baal` brings them).
"""

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from attribguard.device import as_device
from attribguard.reproduce.machine import describe_machine, versions
from benchmarks.peers import peer_versions
from benchmarks.run import missed, run_workload
from benchmarks.table import print_record
from benchmarks.workloads import all_workloads


def main(arguments: list[str] | None = None) -> int:
    workloads = all_workloads()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=workloads, metavar="NAME", help="a workload, or several")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds, no sweeps; times say nothing")
    parser.add_argument("--rounds", type=int, help="counted rounds of each contestant")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything here")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    device = as_device(options.device)
    torch.set_num_threads(1)
    console, records, began = Console(), [], time.perf_counter()
    result = {
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "machine": describe_machine(device),
        "versions": versions() | peer_versions(),
        "seconds": 0,
        "workloads": records,
    }
    for name, workload in workloads.items():
        if device.type not in workload.devices or (options.only and name not in options.only):
            continue
        records.append(run_workload(workload, device, quick=options.quick, rounds=options.rounds))
        print_record(console, records[-1])
        result["seconds"] = round(time.perf_counter() - began)
        if options.json:  # after each, for a whole run takes long
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    console.print(f"{len(records)} workloads in {result['seconds']} s")
    failing = [f"{record['name']}: {c['claim']}" for record in records for c in record["checks"] if not c["holds"]]
    for sentence in failing if options.quick else missed(records):
        console.print(f"[bold red]missed[/] {sentence}")
    return int(bool(failing))


if __name__ == "__main__":
    sys.exit(main())
