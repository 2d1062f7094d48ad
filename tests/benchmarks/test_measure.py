"""How contestants are run, and how their memory is counted."""

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import interleaved_seconds, peak_bytes

CPU = torch.device("cpu")


def test_contestants_run_in_turn_and_short_ones_are_repeated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    calls = []

    def contestant(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    runs = {"a": contestant("a", 2.0), "b": contestant("b", 0.004), "c": contestant("c", 3.0)}
    seconds = interleaved_seconds(runs, 2, CPU)
    assert seconds == {name: pytest.approx([each, each]) for name, each in (("a", 2.0), ("b", 0.004), ("c", 3.0))}
    round_ = ["a", "b", "b", "c"]  # 0.004 s fits twice into 0.01 s
    assert calls == ["a", "b", "b", "c", *round_, *round_]


def test_the_peak_is_what_stands_at_a_time():
    def run():
        a = torch.empty(1_000_000)  # 4 MB
        b = torch.empty(500_000)  # 6 MB
        del a  # 2 MB
        c = torch.empty(750_000)  # 5 MB
        return b, c

    assert peak_bytes(run, CPU) == 6_000_000


def test_what_stood_before_and_what_is_freed_of_it_does_not_count():
    before = [torch.empty(1_000_000)]

    def run():
        before.append(torch.empty(250_000))
        before.pop(0)

    run()
    before.append(torch.empty(250_000))
    assert peak_bytes(run, CPU) == 1_000_000


def test_what_an_operator_needs_inside_and_backward_passes_count():
    w = torch.ones(1000, 1000, requires_grad=True)

    def run():
        w.grad = None
        (w * w).sum().backward()

    assert 8_000_000 <= peak_bytes(run, CPU) <= 16_100_000  # the product, and the gradient in one or two parts
