"""DDP(wrap(model)) on two processes is one process on the joined batch."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import attribguard as ag
from tests.heads.small import annotated_batch, guarded
from tests.networks import batch, plain_cnn
from tests.two_processes import run_two

ANNOTATED = torch.tensor([True, True, False, True, False, False, False, False])  # the second process has none


def make(norm):
    torch.manual_seed(0)
    model = plain_cnn(norm=norm)
    return model, ag.wrap(model, penalties=[ag.ActDiff(10.0, corruption="zero")], example_input=(1, 12, 12))


def data():
    torch.manual_seed(1)
    return batch(8)


def check_whole(x):
    """What runs must not depend on one process's annotations: rows are left out nowhere."""
    assert len(x) == 4


def train(call, model, rows):
    x, y, mask = data()
    for _ in range(2):
        model.zero_grad()
        out = call(x[rows], y[rows], mask=mask[rows], annotated=ANNOTATED[rows])
        out.loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def train_one_of_two(rank, norm):
    model, guard = make(norm)
    model[0].register_forward_hook(lambda module, args, out: check_whole(args[0]))
    return train(DistributedDataParallel(guard), model, slice(4 * rank, 4 * rank + 4))


def test_two_processes_equal_one(tmp_path):
    model, guard = make(norm=False)
    expected = train(guard, model, slice(None))
    for gradients in run_two(train_one_of_two, False, folder=tmp_path):
        for ours, theirs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batchnorm_without_annotated_rows_on_one_process_neither_hangs_nor_diverges(tmp_path):
    first, second = run_two(train_one_of_two, True, folder=tmp_path)
    for ours, theirs in zip(first, second, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs)


def make_with_heads(criterion=None):
    torch.manual_seed(0)
    return guarded(criterion=criterion, penalties=[ag.ActDiff(10.0, corruption="zero")])


def train_heads(call, guard, rows):
    """Two steps with an optimizer; the second process has no annotated row of either kind."""
    torch.manual_seed(1)
    x, y, mask, segmentation = (t[rows] for t in annotated_batch(8))
    annotated = {"mask": ANNOTATED[rows], "segmentation": ANNOTATED.roll(1)[rows] & ANNOTATED[rows]}
    optimizer = torch.optim.SGD(guard.parameters(), lr=0.1)
    target = y if guard.criterion is None else None
    for _ in range(2):
        optimizer.zero_grad()
        call(x, target, mask=mask, segmentation=segmentation, annotated=annotated).loss.backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in guard.named_parameters()}


def train_heads_of_two(rank):
    trained = {}
    try:
        for criterion in (None, "none"):
            guard = make_with_heads(criterion)
            if rank == 1:  # what counts is what the first process starts from
                torch.nn.init.zeros_(guard.heads["segmentation"].decoder.out.weight)
            trained[criterion] = train_heads(DistributedDataParallel(guard), guard, slice(4 * rank, 4 * rank + 4))
    except RuntimeError as error:
        trained[criterion] = {"error": str(error)}  # shown by the test that asks for it
    return trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What each of two processes trains, with a criterion and without; started once, which takes most of the time."""
    return run_two(train_heads_of_two, folder=tmp_path_factory.mktemp("heads"))


@pytest.mark.parametrize("criterion", [None, "none"])
def test_two_processes_with_heads_equal_one(trained, criterion):
    """Every parameter takes part in each reduction, where no row is annotated and where nothing is classified."""
    first, second = (each[criterion] for each in trained)
    assert "error" not in first, first["error"]
    guard = make_with_heads(criterion)
    for name, value in train_heads(guard, guard, slice(None)).items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6, msg=name)
