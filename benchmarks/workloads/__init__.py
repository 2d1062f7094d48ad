"""The workloads, one file a row of the table."""

import importlib
import pkgutil

from benchmarks.workload import Workload


def all_workloads() -> dict[str, Workload]:
    """Name to workload, in the order in which the files give their place."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    workloads = [workload for module in sorted(modules, key=lambda m: m.PLACE) for workload in module.WORKLOADS]
    return {workload.name: workload for workload in workloads}
