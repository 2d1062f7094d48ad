"""A training that was saved after any step and built again ends with the same bits, all that has a state included."""

import random

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

import attribguard as ag
from attribguard.checkpoint import ResumableLoader, load, save
from attribguard.checkpoint.checked_file import read_checked, write_checked
from attribguard.errors import DataError, TypeMismatchError
from tests.checkpoint.differences import differences
from tests.heads.small import SHAPE, both, strided

STEPS, PER_EPOCH = 9, 3


class Augmented(Dataset):
    """Images with noise from all three global generators."""

    def __len__(self):
        return 4 * PER_EPOCH

    def __getitem__(self, index):
        drawn = torch.Generator().manual_seed(index)
        x = torch.rand(SHAPE, generator=drawn) / 2 + torch.rand(()) / 8 + random.random() / 8 + np.random.rand() / 8  # noqa: NPY002
        mask = torch.zeros(SHAPE)
        mask[:, 3:8, 3:8] = 1
        return x.float(), index % 2, mask, mask[0].long()


class Run:
    """A training with everything: penalties that draw, both heads, adaptive weights, schedule, average, scaler."""

    def __init__(self, weighting=ag.Uncertainty, workers=0, width=None):
        model = torch.nn.Sequential(strided(norm=True), torch.nn.Dropout(0.2), torch.nn.Linear(2, width or 2))
        penalties = [ag.ActDiff(1.0), ag.AttributionPenalty(0.1, ag.ExpectedGradients(steps=1))]
        weighting = None if weighting is None else weighting()
        self.guard = ag.wrap(model, penalties=penalties, heads=both(), weighting=weighting, example_input=SHAPE)
        self.optimizer = torch.optim.Adam(self.guard.parameters(), lr=0.01)
        self.noise = torch.Generator().manual_seed(random.randrange(1000))
        self.parts = {
            "schedule": torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.02, STEPS),
            "average": AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)),
            "scaler": torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2),
            "loader": ResumableLoader(DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=workers)),
            "noise": self.noise,
        }

    def steps(self, step=0):
        """Train to the end; gives the number of steps done after each of them."""
        scaler, loader = self.parts["scaler"], self.parts["loader"]
        self.guard.train()
        while loader.epoch < STEPS // PER_EPOCH:
            for x, y, mask, segmentation in loader:
                x = (x + 0.01 * torch.rand(x.shape, generator=self.noise)).clamp(0, 1)
                self.optimizer.zero_grad()
                out = self.guard(x, y, mask=mask, segmentation=segmentation)
                scaler.scale(out.loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
                self.parts["schedule"].step()
                self.parts["average"].update_parameters(self.guard.model)
                # A warm-up that goes from weight to weight.
                self.guard.penalties[0].weight *= 1.5
                self.guard.heads["segmentation"].weight += 0.1
                self.guard.criterion_weight *= 0.9
                step += 1
                yield step

    def save(self, path, step=0, **options):
        save(path, self.guard, self.optimizer, step=step, **options, **self.parts)

    def load(self, path, **options):
        return load(path, self.guard, self.optimizer, **options, **self.parts)


@pytest.mark.parametrize(
    ("weighting", "workers"), [(ag.Uncertainty, 0), (ag.GradNorm, 0), (None, 0), (ag.Uncertainty, 2)]
)
def test_a_run_that_was_saved_and_built_again_ends_with_the_same_bits(tmp_path, weighting, workers):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    whole = Run(weighting, workers)
    # In the first epoch; at an epoch's end, within the loop and with its last batch done; in the last one.
    points = (1, 3, 5, 8) if workers == 0 else (2,)
    for step in whole.steps():
        if step in points:
            whole.save(tmp_path / f"{step}.ckpt", step)
    whole.save(tmp_path / "whole.ckpt", STEPS)
    for point in points:
        torch.manual_seed(100 + point)  # other first weights, other draws
        again = Run(weighting, workers)
        assert again.load(tmp_path / f"{point}.ckpt") == point
        assert [*again.steps(point)] == [*range(point + 1, STEPS + 1)]
        again.save(tmp_path / "again.ckpt", STEPS)
        assert differences(read_checked(tmp_path / "again.ckpt"), read_checked(tmp_path / "whole.ckpt")) == []


@pytest.fixture
def run():
    return Run()


@pytest.fixture
def file(run, tmp_path):
    """Of that run after two steps."""
    for step in run.steps():
        if step == 2:
            run.save(tmp_path / "run.ckpt", step, settings={"seed": 3})
            return tmp_path / "run.ckpt"
    raise AssertionError


def snapshot(run, path):
    run.save(path)
    return read_checked(path)


def without(run, name):
    del run.parts[name]
    return run


def sgd(run):
    run.optimizer = torch.optim.SGD(run.guard.parameters(), lr=0.1)
    return run


def regrouped(run):
    """The same parameters to Adam, the other way round: torch alone would load them."""
    run.optimizer = torch.optim.Adam([*run.guard.parameters()][::-1], lr=0.1)
    return run


def renamed(run):
    run.guard.penalties[0].name = "another"
    return run


def other_schedule(run):
    run.parts["schedule"] = torch.optim.lr_scheduler.ConstantLR(run.optimizer)
    return run


def other_data(run):
    run.parts["loader"] = ResumableLoader(DataLoader(Augmented(), batch_size=6))
    return run


def refusing(run):
    """A refusal of a part's own, which comes late, when other parts are loaded."""

    def refuse(state):
        if state["scale"] == 2048.0:  # what is in the file
            raise RuntimeError("not\nthis one")

    run.parts["scaler"].load_state_dict = refuse
    return run


def doubled(run):
    run.guard.double()
    return run


OTHERS = {
    "width": (lambda: Run(width=3), "guard's tensor"),
    "weighting": (lambda: Run(ag.GradNorm), "guard's tensor 'weighting"),
    "no weighting": (lambda: Run(None), "guard's tensor 'weighting"),
    "dtype": (lambda: doubled(Run()), "torch.float32; needed .*torch.float64"),
    "term": (lambda: renamed(Run()), "term 'another' was none"),
    "optimizer": (lambda: sgd(Run()), "part 'optimizer' was Adam; needed SGD"),
    "parameters": (lambda: regrouped(Run()), "optimizer's tensor"),
    "part missing": (lambda: without(Run(), "average"), "part 'average' was AveragedModel; needed none"),
    "schedule": (lambda: other_schedule(Run()), "part 'schedule' was OneCycleLR; needed ConstantLR"),
    "data": (lambda: other_data(Run()), "'loader' cannot be loaded .*3 batches an epoch; needed one with 2"),
    "late": (lambda: refusing(Run()), r"'scaler' cannot be loaded \(not this one\)"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_training_is_refused_and_changes_nothing(tmp_path, file, name):
    build, words = OTHERS[name]
    torch.manual_seed(5)
    other = build()
    before = snapshot(other, tmp_path / "before.ckpt")
    with pytest.raises(DataError, match=words):
        other.load(file, settings={"seed": 3})
    assert differences(snapshot(other, tmp_path / "after.ckpt"), before) == []


LIES = {  # what is changed in a good file, whose checksum and claims about itself then say that nothing was
    "a tensor of another shape": lambda content: content["guard"].update({next(iter(content["guard"])): torch.ones(7)}),
    "a tensor less": lambda content: content["guard"].popitem(),
    "no tensors": lambda content: content.update(guard=3),
    "a negative weight": lambda content: content["weights"].update(criterion=-1.0),
    "a weight of text": lambda content: content["weights"].update(criterion="1"),
    "no parts": lambda content: content.update(parts={}),
    "odd random states": lambda content: content["random"]["host"].update(torch=torch.ones(3)),
    "no random states": lambda content: content.update(random=None),
    "forms of numbers": lambda content: content.update(forms=dict.fromkeys(content["forms"], 3)),
    "no step": lambda content: content.update(step="three"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_about_itself_is_refused_and_changes_nothing(tmp_path, file, lie):
    content = read_checked(file)
    LIES[lie](content)
    write_checked(tmp_path / "lie.ckpt", content)
    torch.manual_seed(5)
    other = Run()
    before = snapshot(other, tmp_path / "before.ckpt")
    with pytest.raises(DataError):
        other.load(tmp_path / "lie.ckpt", settings={"seed": 3})
    assert differences(snapshot(other, tmp_path / "after.ckpt"), before) == []


def test_other_settings_are_refused_by_name(run, file):
    for settings, words in (
        ({"seed": 4}, "setting 'seed' was 3; needed 4"),
        ({}, "setting 'seed' was 3; needed none"),
        ({"seed": 3, "epochs": 2}, "setting 'epochs' was none; needed 2"),
    ):
        with pytest.raises(DataError, match=words):
            run.load(file, settings=settings)


@pytest.mark.parametrize("content", [3, [], {}, {"step": 1}, {"settings": 1}, {"settings": [1], "forms": 0}])
def test_a_file_of_the_right_form_with_another_content_is_refused(run, tmp_path, content):
    write_checked(tmp_path / "run.ckpt", content)
    with pytest.raises(DataError, match="no checkpoint of a training"):
        run.load(tmp_path / "run.ckpt")


def test_what_is_around_the_guard_leaves_no_trace(tmp_path):
    def small():
        return ag.wrap(strided(), penalties=[ag.ActDiff(1.0)], example_input=SHAPE)

    guard, twin, third = small(), small(), small()
    save(tmp_path / "run.ckpt", torch.compile(guard, backend="eager"), torch.optim.SGD(guard.parameters()))
    load(tmp_path / "run.ckpt", twin, torch.optim.SGD(twin.parameters()))
    load(tmp_path / "run.ckpt", torch.nn.DataParallel(third), torch.optim.SGD(third.parameters()))
    for other in (twin, third):
        assert differences(other.state_dict(), guard.state_dict()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"guard": torch.nn.Linear(1, 1)}, "a Linear in the guard's place"),
        ({"guard": 5}, "a int in the guard's place"),
        ({"optimizer": None}, "optimizer=NoneType"),
        ({"schedule": 5}, "schedule=int"),
        ({"step": -1}, "step=-1"),
        ({"step": 1.5}, "step=1.5"),
        ({"settings": {"rate": np.float64(1)}}, "plain Python values"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_the_earlier_file(run, file, change, words):
    content = file.read_bytes()
    given = {"guard": run.guard, "optimizer": run.optimizer, **change}
    with pytest.raises(TypeMismatchError, match=words):
        save(file, **given)
    assert file.read_bytes() == content
