"""The thresholds of a layer's units over a data set: exact, and by a running-quantile sketch."""

import numpy as np
import torch

from attribguard.probes import ActivationQuantile
from benchmarks.workload import Bar, Case, Check, Sweep, Workload

EXACT, SKETCH = "exact", "running-quantile sketch"
Q, ROWS = 0.005, 600  # values that the sketch holds of each unit


def make(device, images, units, side, batches):
    parts = [torch.randn(images, units, side, side, device=device).relu() for _ in range(batches)]
    total = images * batches * side * side

    def exact():
        metric = ActivationQuantile(Q, total=total).to(device)
        for part in parts:
            metric.update(part)
        return metric

    def sketch():
        metric = ActivationQuantile(Q, max_bytes=4 * (units + 1) * ROWS).to(device)
        for part in parts:
            metric.update(part)
        return metric

    def checks():
        metric = exact()
        values = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1).cpu().numpy()
        found = metric.compute().cpu().numpy()
        wanted = np.quantile(values, 1 - Q, axis=1, method="inverted_cdf")
        held = sum(x.nbytes for s in metric.metric_state.values() for x in (s if isinstance(s, list) else [s]))
        most = 2 * (int(Q * total) + 1) * 4 * (units + 1) + 64
        return [
            Check("thresholds differ from those of all values sorted", np.abs(found - wanted).max(), 0),
            Check("bytes held, over twice the U k largest values", held / most, 1),
        ]

    return Case({EXACT: lambda: exact().compute(), SKETCH: lambda: sketch().compute()}, checks)


PLACE = 90
BARS = [Bar(SKETCH, EXACT, least=5)]
WORKLOADS = [
    Workload(
        "activation_thresholds",
        "Activation thresholds, 4 x 64 images, 2048 units of 7 x 7",
        make,
        size={"images": 64, "units": 2048, "side": 7, "batches": 4},
        quick={"images": 8, "units": 32, "side": 7, "batches": 4},
        bars=BARS,
        sweeps=[
            Sweep("units", (256, 512, 1024), {EXACT: 1.0, SKETCH: 1.0}),
            Sweep("batches", (2, 4, 8), {EXACT: 1.0, SKETCH: 1.0}),
        ],
        rounds=7,
        sweep_size={"units": 256},
    ),
    Workload(
        "activation_thresholds_fine",
        "Activation thresholds, 4 x 64 images, 256 units of 28 x 28",
        make,
        size={"images": 64, "units": 256, "side": 28, "batches": 4},
        quick={"images": 4, "units": 8, "side": 28, "batches": 2},
        bars=BARS,
        sweeps=[Sweep("side", (14, 28, 56), {EXACT: 2.0})],
        rounds=6,
    ),
]
