"""Seconds and peak memory of several contestants, in turn, round after round."""

import gc
import itertools
import time
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

# A clock of some 100 ns and the calls around it should not be seen.
_SHORTEST = 0.01


def interleaved_seconds(runs: Mapping[str, Callable], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """One number a round for each contestant, A B C A B C; what is over in a moment is repeated within its turn."""
    repeats = {name: _warm_up(run, device) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        gc.collect()
        for name, run in runs.items():
            seconds[name].append(_seconds(run, repeats[name], device) / repeats[name])
    return seconds


def peak_bytes(run: Callable, device: torch.device) -> int:
    """The most that ``run`` holds at a time beyond what stood in memory before it.

    Exact: on a GPU the allocator's own count; on the CPU the sum of all that torch's allocator gave and took back, in
    order, results and what operators need inside alike. Scratch space of the convolution library is not seen.
    """
    run()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as watched:
        run()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    steps = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(steps), default=0)


def _warm_up(run: Callable, device: torch.device) -> int:
    """Run it once or twice, and say how often it has to be run to be seen."""
    once = _seconds(run, 1, device)
    if once < 1:  # what takes longer has nothing to gain
        once = min(once, _seconds(run, 1, device))
    return max(1, round(_SHORTEST / once))


def _seconds(run: Callable, times: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
