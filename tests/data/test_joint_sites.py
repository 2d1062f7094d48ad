import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from attribguard.data.joint_sites import JointSites
from attribguard.errors import DataError, RangeError

N = 1200
SPLITS = ("train", "valid", "test")


class Site(Dataset):
    """Images that say which site and item they are; two items a patient, who has the same number at both sites."""

    def __init__(self, number, targets, size=(6, 8), **more):
        self.number, self.size, self.more, self.reads = number, size, more, 0
        self._targets = targets

    def __len__(self):
        return len(self._targets)

    def __getitem__(self, index):
        self.reads += 1
        image = torch.full((1, *self.size), self.number + index / 10_000)
        more = {key: value(index) for key, value in self.more.items()}
        return {
            "image": image,
            "target": self._targets[index],
            "group": str(index // 2),
            "file": f"{index}.png",
            **more,
        }


class Reader(Site):
    """With the lists that a reader of files has."""

    def __init__(self, number, targets, labels=(), **options):
        super().__init__(number, targets, **options)
        self.targets, self.labels = targets, labels
        self.groups = [str(index // 2) for index in range(len(targets))]


def findings(share, seed):
    """(N, 3) labels, of which the second is as common as `share`."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.random((N, 3)) < [0.9, share, 0.1]).float()


A = Reader(0, findings(0.5, 1), labels=("mass", "emphysema", "edema"))
B = Reader(1, findings(0.3, 2), labels=("Mass", "Emphysema", "Edema"))
LABEL = ("emphysema", "Emphysema")


def table(data):
    """Counts by target and site."""
    counts = np.zeros((2, 2), dtype=int)
    np.add.at(counts, (data.targets.numpy(), data.sites.numpy()), 1)
    return counts


def test_the_papers_mixture_in_training_and_its_reverse_in_the_test():
    assert table(JointSites(A, B, LABEL, 0.9, n=200)).tolist() == [[10, 90], [90, 10]]
    for split in ("valid", "test"):
        assert table(JointSites(A, B, LABEL, 0.9, split, n=100)).tolist() == [[45, 5], [5, 45]]


def test_the_control_has_a_quarter_of_each_kind():
    for split in SPLITS:
        assert table(JointSites(A, B, LABEL, 0.5, split, n=120)).tolist() == [[30, 30], [30, 30]]


@pytest.mark.parametrize("correlation", [0, 0.1, 0.37, 0.5, 0.9, 1])
@pytest.mark.parametrize("split", SPLITS)
def test_classes_and_sites_are_balanced_and_as_many_as_there_can_be(correlation, split):
    data = JointSites(A, B, LABEL, correlation, split)
    counts = table(data)
    half = len(data) // 2
    assert counts.sum(0).tolist() == counts.sum(1).tolist() == [half, half]
    share = correlation if split == "train" else 1 - correlation
    assert abs(counts[1, 0] - share * half) <= 0.5
    with pytest.raises(DataError, match=f" to {len(data)} in"):
        JointSites(A, B, LABEL, correlation, split, n=len(data) + 2)


def test_items_are_those_of_the_sites_with_their_labels():
    data = JointSites(A, B, LABEL, n=200)
    for index in range(200):
        item = data[index]
        value = float(item["image"][0, 0, 0])
        site, place = int(value), round(value % 1 * 10_000)
        assert item["site"] == data.sites[index] == site
        assert item["target"] == data.targets[index] == (A, B)[site].targets[place, 1]
        assert item["group"] == data.groups[index] == f"{'ab'[site]}:{place // 2}"
        assert item["file"] == f"{place}.png"
        assert set(item) == {"image", "target", "site", "group", "file", "mask", "annotated"}
    assert item["target"].dtype == torch.int64 and item["target"].shape == () and data.labels[1] == "unhealthy"


def test_no_picture_is_there_twice_and_no_patient_in_two_splits():
    parts = [JointSites(A, B, LABEL, split=split, seed=4) for split in SPLITS]
    for data in parts:
        assert len({tuple(place) for place in data._places}) == len(data)
    homes = [set(data.groups) for data in parts]
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])


def test_classes_and_sites_come_in_random_order():
    data = JointSites(A, B, LABEL, n=200)
    halves = data.targets[:100].sum(), data.sites[:100].sum()
    assert all(30 < int(half) < 70 for half in halves)


def test_the_choice_depends_on_the_seed_alone():
    def places(seed, split="train"):
        return JointSites(A, B, LABEL, split=split, seed=seed, n=60)._places

    torch.rand(1)
    assert places(1) == places(1) and places(1) != places(2) and places(1, "test") != places(2, "test")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers):
    data = JointSites(A, B, LABEL, n=40)
    batches = list(DataLoader(data, batch_size=20, num_workers=workers))
    assert torch.equal(torch.cat([batch["target"] for batch in batches]), data.targets)
    assert [group for batch in batches for group in batch["group"]] == data.groups


def test_the_mask_is_the_papers_circle():
    item = JointSites(A, B, LABEL, n=20)[0]
    expected = [[int((y - 2.5) ** 2 + (x - 3.5) ** 2 <= 9) for x in range(8)] for y in range(6)]
    assert item["mask"].tolist() == [expected] and item["annotated"] and item["annotated"].dtype == torch.bool


def test_masks_of_both_sites_own_go_before_the_circle():
    own = {
        "mask": lambda index: torch.full((1, 6, 8), index / N),
        "annotated": lambda index: torch.tensor(index % 2 > 0),
    }
    with_masks = [Reader(number, findings(0.5, number), **own) for number in (0, 1)]
    data = JointSites(*with_masks, 1, n=20)
    for index, (_, _, place) in enumerate(data._places):
        item = data[index]
        assert item["mask"][0, 0, 0] == torch.tensor(place / N) and bool(item["annotated"]) == (place % 2 > 0)
    mixed = JointSites(with_masks[0], B, 1, n=20)
    assert all(mixed[index]["mask"].sum() == data_circle() for index in range(20))


def data_circle():
    return sum((y - 2.5) ** 2 + (x - 3.5) ** 2 <= 9 for x in range(8) for y in range(6))


def test_lists_of_a_reader_save_the_reading_of_pictures_and_give_the_same_mixture():
    slow = [Site(site.number, site.targets) for site in (A, B)]
    fast = [Reader(site.number, site.targets) for site in (A, B)]
    from_items, from_lists = (JointSites(*sites, 1, n=100) for sites in (slow, fast))
    assert from_items._places == from_lists._places and from_items.groups == from_lists.groups
    assert [site.reads for site in fast] == [1, 1]


def test_one_of_several_classes_may_be_the_unhealthy_one():
    classes = torch.arange(N) % 3
    sites = [Reader(number, classes, labels=("x", "y", "z")) for number in (0, 1)]
    for label in (2, "z", ("z", 2)):
        data = JointSites(*sites, label, n=60)
        assert [int(classes[place] == 2) for _, _, place in data._places] == data.targets.tolist()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"label": "emphysema"}, DataError, "the label 'emphysema'.*Emphysema"),
        ({"label": 3}, DataError, "the label 3"),
        ({"label": -1}, DataError, "the label -1"),
        ({"correlation": 1.1}, DataError, r"correlation=1\.1"),
        ({"correlation": float("nan")}, DataError, "correlation=nan"),
        ({"split": "all"}, RangeError, "split='all'"),
        ({"n": 7}, DataError, "n=7"),
        ({"n": 0}, DataError, "n=0"),
        ({"n": 4}, DataError, "n=4"),
        ({"n": 100_000}, DataError, "n=100000"),
        ({"seed": -1}, DataError, "seed=-1"),
        ({"fractions": (0.5, 0.5, 0.5)}, DataError, "fractions="),
        ({"b": Reader(1, findings(0.3, 2), size=(6, 6))}, DataError, r"\(1, 6, 8\) and \(1, 6, 6\)"),
        ({"b": Reader(1, findings(0.0, 2)), "label": 1}, DataError, "some of each kind"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(change, error, words):
    with pytest.raises(error, match=words):
        JointSites(**{"a": A, "b": B, "label": LABEL, **change})
