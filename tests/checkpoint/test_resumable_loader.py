"""Interrupted after any batch and built again, a loader gives what it would have given, whatever draws the order."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, WeightedRandomSampler

from attribguard.checkpoint import ResumableLoader
from attribguard.checkpoint.random_states import host_states, restore_host_states
from attribguard.errors import DataError

N = 7


class Augmented(Dataset):
    """Items with draws from all three global generators."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()), random.random(), np.random.rand()])  # noqa: NPY002


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(torch.randperm(N).tolist())


def seeded(generator):
    generator.manual_seed(5)
    return generator


LOADERS = {
    "shuffled": lambda: DataLoader(Augmented(), batch_size=2, shuffle=True),
    "workers": lambda: DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=2),
    "generator": lambda: DataLoader(Augmented(), 2, shuffle=True, generator=seeded(torch.Generator())),
    "sampler": lambda: DataLoader(Augmented(), 2, sampler=RandomSampler(range(N), generator=seeded(torch.Generator()))),
    "weighted": lambda: DataLoader(Augmented(), 2, sampler=WeightedRandomSampler([1.0] * N, 9)),
    "batches": lambda: DataLoader(
        Augmented(), batch_sampler=BatchSampler(RandomSampler(range(N), generator=seeded(torch.Generator())), 3, True)
    ),
    "in order": lambda: DataLoader(Augmented(), 2),
    "stream": lambda: DataLoader(Streamed(), batch_size=2),
    "no batches": lambda: DataLoader(Augmented(), batch_size=None, shuffle=True),
}


def epochs(loader, batches, on_batch=lambda: None):
    """The rest of three epochs, with what a training draws between batches."""
    while loader.epoch < 3:
        for batch in loader:
            batches.append(batch.clone())
            torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
            on_batch()
    return batches


def snapshot(loader):
    return loader.state_dict(), host_states()


@pytest.mark.parametrize("name", LOADERS)
def test_it_goes_on_where_it_was_interrupted(name):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    whole, taken = [], []
    loader = ResumableLoader(LOADERS[name]())
    epochs(loader, whole, lambda: taken.append(snapshot(loader)))
    assert not torch.equal(torch.stack(whole[:2]), torch.stack(whole[len(whole) // 3 :][:2]))  # epochs do differ
    # In the first epoch; in the second; after the last batch of one; after the last of all.
    for given in (1, 3, len(whole) // 3 + 2, 2 * (len(whole) // 3), len(whole)):
        torch.rand(5), random.random(), np.random.rand()  # noqa: NPY002
        again = ResumableLoader(LOADERS[name]())
        state, numbers = taken[given - 1]
        again.load_state_dict(state)
        restore_host_states(numbers)
        rest = epochs(again, [])
        assert len(rest) == len(whole) - given
        assert all(map(torch.equal, rest, whole[given:]))


class Counted(Augmented):
    read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def test_between_epochs_nothing_is_loaded_twice():
    loader, again = (ResumableLoader(DataLoader(Counted(), batch_size=2, shuffle=True)) for _ in range(2))
    list(loader)
    again.load_state_dict(loader.state_dict())
    assert (again.epoch, again.done) == (1, 0)
    next(iter(again))
    assert again.loader.dataset.read == 2


class Drawn:
    """Batches in an order from a generator that nothing tells of."""

    def __init__(self):
        self.own = seeded(torch.Generator())

    def __iter__(self):
        return iter(torch.randperm(N, generator=self.own).tolist())


def test_a_generator_that_it_was_told_of_goes_on_too():
    data, given = Drawn(), []
    loader = ResumableLoader(data, [data.own])
    for number in loader:
        given.append(number)
        if len(given) == 3:
            state = loader.state_dict()
    given += list(loader)
    data = Drawn()
    again = ResumableLoader(data, [data.own])
    again.load_state_dict(state)
    assert [*again, *again] == given[3:]


def test_an_epoch_that_the_loop_breaks_off_is_over():
    loader = ResumableLoader(LOADERS["shuffled"]())
    for _ in loader:
        break
    assert (loader.epoch, loader.done) == (1, 0)
    assert len(list(loader)) == len(loader) == 4 and loader.epoch == 2


def test_a_state_that_is_loaded_within_a_pass_counts_from_the_next():
    loader, given, back = ResumableLoader(LOADERS["in order"]()), [], True
    while loader.epoch < 1:
        for batch in loader:
            given.append(batch[0, 0].item())
            if loader.done == 1 and back:
                state = loader.state_dict()
            if loader.done == 3 and back:
                loader.load_state_dict(state)
                back = False
                break
    assert given == [0, 2, 4, 2, 4, 6]


def test_another_loaders_position_is_refused_and_changes_nothing():
    state = ResumableLoader(LOADERS["shuffled"]()).state_dict() | {"epoch": 5}
    for other, words in (
        (ResumableLoader(DataLoader(range(20), batch_size=2)), "4 batches an epoch; needed one with 10"),
        (ResumableLoader(LOADERS["generator"]()), "0 generators; needed one with 1"),
    ):
        with pytest.raises(DataError, match=words):
            other.load_state_dict(state)
        assert other.epoch == 0


def test_a_loader_that_has_become_shorter_than_its_position_is_refused():
    loader = ResumableLoader(LOADERS["stream"]())
    passing = iter(loader)
    assert [len(next(passing)) for _ in range(3)] == [2, 2, 2]
    again = ResumableLoader(DataLoader(Streamed(), batch_size=5))
    again.load_state_dict(loader.state_dict())
    with pytest.raises(DataError, match="ends before its batch 3"):
        next(iter(again))
