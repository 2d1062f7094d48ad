import json

import pytest
import torch
from torch import nn

from attribguard.auditing import audit
from attribguard.auditing import run as module
from attribguard.errors import DataError, RangeError, TypeMismatchError
from tests.auditing.subjects import Corner, batches


def plain(report):
    return report.models, report.differences, report.images, report.left_out, report.annotated


def test_each_image_is_seen_once_by_each_network():
    network, baseline = Corner(), Corner(swap=True)
    audit(network, list(batches(20)), baseline=baseline, scan=False)
    found_out = Corner()
    audit(found_out, list(batches(5)), scan=False)
    # What is found out about a network takes some calls once; then there is one call a batch.
    assert network.calls - found_out.calls == baseline.calls - found_out.calls == 3


def test_the_figures_are_those_of_the_corners():
    report = audit(Corner(), list(batches(40)), baseline=Corner(swap=True))
    model, baseline = report.models["model"], report.models["baseline"]
    assert (model.figures["accuracy"].value, baseline.figures["accuracy"].value) == (1.0, 0.0)
    assert report.annotated == 40 and report.relevant == 0.25
    assert report.differences["accuracy"].figure.value == 1.0
    assert model.scan is not None and model.concepts.images == 40 and report.left_out == []


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    audit(network.train(), list(batches(20)))
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and not network[0]._forward_hooks


def test_no_more_images_are_looked_at_than_asked_for():
    report = audit(Corner(), list(batches(20)), max_images=7, scan=False)
    assert len(report.images) == 7 and report.left_out == ["Images after the first 7: max_images."]
    assert audit(Corner(), list(batches(20)), max_images=20, scan=False).left_out == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("cut", [0, 1, 200, -1, -200])
def test_interrupted_at_any_point_it_goes_on_and_ends_with_the_same_figures(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    whole = audit(Corner(), list(batches(30)), baseline=Corner(swap=True))

    def stop(done):
        if done == 15:
            raise Killed

    with pytest.raises(Killed):
        audit(Corner(), list(batches(30)), baseline=Corner(swap=True), resume=path, on_images=stop)
    if cut:  # killed within a line
        content = path.read_bytes()
        path.write_bytes(content[:cut])
    for _ in range(2):  # the second one finds no half line amid the rows that the first one added
        report = audit(Corner(), list(batches(30)), baseline=Corner(swap=True), resume=path)
        assert plain(report) == plain(whole)


def test_images_that_are_done_are_not_looked_at_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    audit(Corner(), list(batches(30)), scan=False, concepts=False, resume=path)
    network = Corner()
    audit(network, list(batches(30)), scan=False, concepts=False, resume=path)
    assert network.calls == 0 and len(path.read_text().splitlines()) == 31


def test_another_networks_rows_are_refused_and_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    audit(Corner(), list(batches(10)), scan=False, resume=path)
    content = path.read_bytes()
    for other, options in ((Corner(swap=True), {}), (Corner(), {"seed": 1}), (Corner(), {"baseline": Corner()})):
        with pytest.raises(DataError, match="no audit to go on with"):
            audit(other, list(batches(10)), scan=False, resume=path, **options)
    with pytest.raises(DataError, match="5 images, of which 10 were looked at before"):
        audit(Corner(), list(batches(5)), scan=False, resume=path)
    assert path.read_bytes() == content
    path.write_text(json.dumps({"audit": {}}) + "\nnonsense\n")
    with pytest.raises(DataError, match="no audit to go on with"):
        audit(Corner(), list(batches(10)), scan=False, resume=path)


def test_a_file_of_something_else_is_refused_and_kept_even_without_a_line(tmp_path):
    path = tmp_path / "notes.txt"
    for content in ("notes", "notes\n", '{"audit": {"model": "0"}}'):
        path.write_text(content)
        with pytest.raises(DataError, match="no audit to go on with"):
            audit(Corner(), list(batches(10)), scan=False, resume=path)
        assert path.read_text() == content


@pytest.mark.parametrize("name", ["line\u2028line", "line\x85line", "line\nline"])
def test_a_group_may_be_called_by_what_ends_a_line(tmp_path, name):
    path, images = tmp_path / "rows.jsonl", list(batches(10, group=[name] * 10))
    whole = audit(Corner(), images, scan=False, resume=path)
    assert plain(audit(Corner(), images, scan=False, resume=path)) == plain(whole)


def test_pictures_stay_with_what_is_most_worth_seeing(monkeypatch):
    monkeypatch.setattr(module, "PICTURES", 4)
    wrong = list(batches(20))
    wrong[3]["target"] = 1 - wrong[3]["target"]
    report = audit(Corner(), wrong, scan=False)
    shown = [number for number, row in enumerate(report.images) if row.picture]
    assert len(shown) == 4 and set(shown) <= set(range(15, 20)) and len(report.images) == 20
    assert all(bool(row.picture) == bool(row.seen["model"].heat) for row in report.images)
    assert any("Pictures of 16 images" in line for line in report.left_out)


def test_what_cannot_be_said_is_said_to_be_left_out():
    images = [(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.long))]
    left_out = " ".join(audit(Corner(), images).left_out)
    assert "The scan of the model" in left_out and "no image is annotated" in left_out


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_images": 0}, RangeError, "max_images=0"),
        ({"seed": -1}, RangeError, "seed=-1"),
        ({"class_names": ["one"]}, RangeError, "1 class_names"),
        ({"attribution": "tea leaves"}, RangeError, "tea leaves"),
        ({"baseline": 5}, TypeMismatchError, "a model of int"),
    ],
)
def test_bad_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        audit(Corner(), list(batches(10)), scan=False, **options)


def test_a_loader_without_images_is_refused():
    with pytest.raises(DataError, match="a loader without images"):
        audit(Corner(), [])
