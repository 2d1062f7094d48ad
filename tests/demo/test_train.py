from dataclasses import replace

import pytest
import torch

from attribguard import ActDiff
from attribguard.capture import is_hooked
from attribguard.demo.splits import load_splits
from attribguard.demo.train import Settings, reproducible, train

SMALL = Settings(train_images=40, channels=1, epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def crosses():
    return load_splits(None, (40, 2, 2), seed=0).train


def trained(split, penalties=(), seed=0, **changes):
    with reproducible(seed):
        return train(split, penalties, replace(SMALL, **changes))


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("penalties", [(), (ActDiff(10.0, dilate=2),)], ids=["plain", "guarded"])
def test_a_seed_gives_one_network_whatever_was_drawn_before(crosses, penalties):
    first = trained(crosses, penalties)
    torch.rand(7)
    assert same(first, trained(crosses, penalties))
    assert not same(first, trained(crosses, penalties, seed=1))


def test_the_penalty_is_the_only_difference_between_the_trainings(crosses):
    """A penalty of no weight draws its corruptions all the same; weights and order must not notice."""
    assert same(trained(crosses), trained(crosses, [ActDiff(0.0)]))
    assert not same(trained(crosses), trained(crosses, [ActDiff(10.0)]))


def test_the_network_comes_back_unwrapped_and_in_eval_mode(crosses):
    network = trained(crosses, [ActDiff(10.0)])
    assert not any(module.training for module in network.modules())
    assert not is_hooked(network)


def test_every_step_is_told_once(crosses):
    told = []
    with reproducible(0):
        train(crosses, [], SMALL, on_step=lambda done, total: told.append((done, total)))
    assert told == [(step, 6) for step in range(1, 7)]  # 40 images in steps of 16, 16 and 8, twice


def test_every_image_is_seen_once_an_epoch(crosses, monkeypatch):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, **_):
            super().__init__()
            self.fc = torch.nn.Linear(28 * 28, 2)

        def forward(self, x):
            if self.training:
                seen.append(x.flatten(1))
            return self.fc(x.flatten(1))

    monkeypatch.setattr("attribguard.demo.train.actdiff_cnn", Spy)
    trained(crosses)
    assert [len(images) for images in seen] == [16, 16, 8, 16, 16, 8]
    whole = {tuple(image.tolist()) for image in crosses.images.flatten(1)}
    for epoch in (seen[:3], seen[3:]):
        assert {tuple(image.tolist()) for image in torch.cat(epoch)} == whole
    assert not torch.equal(seen[0], seen[3])


def test_the_learning_rate_falls_to_0_over_the_last_steps(crosses, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    trained(crosses, learning_rate=1.0, cooldown=0.5, epochs=4)
    assert rates == pytest.approx([1.0] * 7 + [5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_the_random_state_and_the_threads_are_as_before_also_after_an_error():
    def interrupted():
        with reproducible(5):
            assert torch.get_num_threads() == 1
            torch.rand(3)
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(1)
