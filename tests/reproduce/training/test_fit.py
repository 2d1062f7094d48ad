import itertools

import pytest
import torch
from torch import nn

from attribguard.reproduce.training.fit import fit, guarded, rate
from attribguard.reproduce.training.images import Images
from attribguard.wrapping import wrap

CPU = torch.device("cpu")


def data(n=10):
    return Images(
        {
            "image": torch.rand(n, 1, 8, 8),
            "target": torch.arange(n) % 2,
            "mask": torch.ones(n, 1, 8, 8),
            "annotated": torch.ones(n, dtype=torch.bool),
        }
    )


def guard():
    """A guard and its loss."""
    made = wrap(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2)), example_input=(1, 8, 8))
    return made, guarded(made, "mask", "annotated")


class Seen(Images):
    """Images that remember the order in which they were asked for."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.order = []

    def __getitem__(self, index):
        self.order.append(index.tolist())
        return super().__getitem__(index)


def test_every_epoch_sees_every_image_once_and_ends_in_eval_mode():
    seen, modes, (network, loss) = Seen(data().tensors), [], guard()
    fit(
        network,
        loss,
        seen,
        epochs=3,
        batch_size=4,
        lr=1e-3,
        device=CPU,
        after_epoch=lambda: modes.append(network.training),
    )
    assert [len(batch) for batch in seen.order] == [4, 4, 2] * 3
    epochs = [[*itertools.chain(*seen.order[i : i + 3])] for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [[*range(10)]] * 3 and epochs[0] != epochs[1]
    assert modes == [False] * 3 and not network.training


def test_n_keeps_to_the_first_images():
    seen = Seen(data().tensors)
    fit(*guard(), seen, epochs=1, batch_size=4, lr=1e-3, device=CPU, n=6)
    assert sorted(itertools.chain(*seen.order)) == [*range(6)]


def test_the_order_does_not_depend_on_what_the_training_draws():
    orders = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(3)
        seen, (network, loss) = Seen(data().tensors), guard()
        network.model[1].p = dropout
        torch.manual_seed(3)
        fit(network, loss, seen, epochs=2, batch_size=4, lr=1e-3, device=CPU)
        orders.append(seen.order)
    assert orders[0] == orders[1]


def test_steps_are_told_with_their_total():
    steps = []
    fit(*guard(), data(), epochs=2, batch_size=4, lr=1e-3, device=CPU, on_step=lambda *step: steps.append(step))
    assert steps == [(i, 6) for i in range(1, 7)]


def test_the_rate_follows_its_schedule(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    fit(*guard(), data(), epochs=5, batch_size=5, lr=2.0, device=CPU, schedule="cooldown")
    assert rates == pytest.approx([2.0] * 8 + [2 * 2 / 3, 2 / 3])  # ten steps, the last three tenths fall
    rates.clear()
    fit(*guard(), data(), epochs=5, batch_size=5, lr=2.0, device=CPU)
    assert rates == [2.0] * 10


@pytest.mark.parametrize(
    ("schedule", "half"), [("constant", 1.0), ("cooldown", 1.0), ("cosine", 0.5), ("polynomial", 0.5**0.9)]
)
def test_schedules_start_at_one_and_have_the_papers_value_half_way(schedule, half):
    assert rate(schedule, 0.0) == 1.0 and rate(schedule, 0.5) == pytest.approx(half)
    assert rate(schedule, 1.0) == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)


def test_what_is_frozen_stays_and_sgd_moves_the_rest():
    network, loss = guard()
    network.model[2].bias.requires_grad_(False)
    before = [parameter.clone() for parameter in network.parameters()]
    fit(network, loss, data(), epochs=1, batch_size=4, lr=0.1, device=CPU, optimizer="sgd")
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert moved == [True, False]


def test_a_last_batch_of_a_single_image_is_left_out():
    seen = Seen(data(9).tensors)
    fit(*guard(), seen, epochs=1, batch_size=4, lr=1e-3, device=CPU)
    assert [len(batch) for batch in seen.order] == [4, 4]
