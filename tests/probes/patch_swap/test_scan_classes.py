import io
import json
import weakref

import pytest
import torch
from rich.console import Console
from torch import nn

from attribguard.errors import DataError, ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.probes.patch_swap import ClassScan, PairScan, PatchGrid, pairwise_scan, scan_classes
from attribguard.probes.patch_swap.class_pools import draw_pools

CORNERS = [(0, 0), (0, 4), (4, 0)]  # where each of the three classes has its bright patch
PAIRS = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


class Decoys:
    """Dim noise with a bright patch of the class's own; counts what is read of it."""

    def __init__(self, n=150, classes=3):
        self.images = torch.rand(n, 1, 8, 8) * 0.2
        self.targets = torch.arange(n) % classes
        for image, target in zip(self.images, self.targets.tolist(), strict=True):
            top, left = CORNERS[target]
            image[:, top : top + 4, left : left + 4] = 1
        self.read = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read += 1
        return self.images[index], self.targets[index], "and more"


def decoy_reader():
    """A network that sees the three bright patches and nothing else."""
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 3))
    weight = torch.zeros(3, 8, 8)
    for row, (top, left) in zip(weight, CORNERS, strict=True):
        row[top : top + 4, left : left + 4] = 0.5
    network[2].weight.data, network[2].bias.data = weight.flatten(1), torch.zeros(3)
    return network


def scan(data, network=None, **options):
    options = {"sources": 8, "targets": 6, "passes": 20, "progress": False, **options}
    return scan_classes(network or decoy_reader(), data, **options)


def test_every_pair_of_classes_is_scanned_and_the_table_names_each_ones_patch():
    found = scan(Decoys())
    assert [(pair.source_class, pair.target_class) for pair in found.pairs] == PAIRS
    # The target's own bright patch costs certainty too, but less.
    suspects = found.suspects(alpha=0.01, min_drop=0.6)
    assert sorted((each.source_class, each.target_class) for each in suspects) == PAIRS
    assert all(each.corner == CORNERS[each.source_class] for each in suspects)
    assert [each.drop for each in suspects] == sorted((each.drop for each in suspects), reverse=True)
    expected = torch.ones(1, 1, 8, 8)
    expected[..., :4, :] = expected[..., 4:, :4] = 0
    assert torch.equal(found.irrelevant_mask(alpha=0.01, min_drop=0.6), expected)


def test_sources_are_right_and_targets_are_any_images_of_their_class():
    data = Decoys(60)
    data.targets[:6] = (data.targets[:6] + 1) % 3  # mislabelled: the network says something else
    found = scan(data, sources=30, targets=30)
    for pair in found.pairs:
        # A class has 20 images by its label, 18 of which the network is right about.
        assert (pair.sources, pair.targets) == (18, 20)


def test_the_data_set_is_read_until_there_is_enough_and_no_further():
    data = Decoys(20_000)
    scan(data, pairs=[(2, 0)])
    assert data.read < 600


@pytest.mark.parametrize(("pairs", "expected"), [([(2, 0), (0, 1), (2, 0)], [(2, 0), (0, 1)]), (6, PAIRS)])
def test_pairs_can_be_chosen(pairs, expected):
    assert [(pair.source_class, pair.target_class) for pair in scan(Decoys(), pairs=pairs).pairs] == expected


def test_a_sample_of_pairs_depends_on_the_seed():
    def sample(seed):
        return [(p.source_class, p.target_class) for p in scan(Decoys(), pairs=3, passes=2, generator=seed).pairs]

    samples = [sample(seed) for seed in range(4)]
    assert sample(0) == samples[0] and len({tuple(each) for each in samples}) > 1
    assert all(len(set(each)) == 3 and set(each) <= set(PAIRS) for each in samples)


@pytest.fixture
def scanned(monkeypatch):
    """The pairs that are really scanned, in order."""
    pairs, real = [], pairwise_scan._scan
    monkeypatch.setattr(
        pairwise_scan, "_scan", lambda model, a, b, *rest: pairs.append((a, b)) or real(model, a, b, *rest)
    )
    return pairs


@pytest.mark.parametrize("torn", ["", '{"key": "0123'])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, scanned, torn):
    path, data, network = tmp_path / "pairs.jsonl", Decoys(), decoy_reader()
    whole = scan(data, network)
    scanned.clear()
    scan(data, network, pairs=[(0, 1), (1, 2)], path=path)
    with path.open("a") as file:
        file.write(torn)
    assert scan(data, network, path=path) == whole  # to the last bit
    assert sorted(scanned) == PAIRS  # each once
    assert scan(data, network, path=path) == whole
    assert len(scanned) == 6 and len(path.read_text().splitlines()) == 6


def test_a_run_that_dies_keeps_what_it_has(tmp_path, monkeypatch):
    path, real = tmp_path / "pairs.jsonl", pairwise_scan._scan

    def dies(model, a, b, *rest):
        if (a, b) == (1, 0):
            raise KeyboardInterrupt
        return real(model, a, b, *rest)

    monkeypatch.setattr(pairwise_scan, "_scan", dies)
    with pytest.raises(KeyboardInterrupt):
        scan(Decoys(), path=path)
    assert [tuple(json.loads(line).values())[1:3] for line in path.read_text().splitlines()] == PAIRS[:2]


@pytest.mark.parametrize("change", ["network", "images", "options", "seed"])
def test_a_file_of_another_scan_is_one_clear_error(tmp_path, change):
    path, data, network = tmp_path / "pairs.jsonl", Decoys(), decoy_reader()
    scan(data, network, path=path, pairs=[(0, 1)])
    if change == "network":
        network[2].bias.data += 0.1
    if change == "images":
        data.images += 0.01
    with pytest.raises(DataError, match="another network, other images or other options"):
        scan(data, network, path=path, passes=21 if change == "options" else 20, generator=int(change == "seed"))


@pytest.mark.parametrize(
    "content", [b"no json\n", b"[1]\n", b'{"key": "0"}\n', b'{"key": "0", "drop": 1}\n', b"{}\n", b"no end", b"\xff\0"]
)
def test_a_file_that_holds_something_else_is_one_clear_error_and_stays(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="a line that is no pair's"):
        scan(Decoys(), path=path)
    assert path.read_bytes() == content


def test_a_class_without_sources_or_targets_is_named_and_not_tested():
    data, network = Decoys(), decoy_reader()
    network[2].bias.data[1] = -100.0  # says 1 of no image
    found = scan(data, network)
    reasons = {(p.source_class, p.target_class): p.untested for p in found.pairs}
    assert reasons[1, 0] == reasons[1, 2] == "no image of class 1 that is classified as it"
    assert reasons[0, 1] is None and len(found.untested) == 2
    two = Decoys(40, classes=2)
    assert scan(two, pairs=[(0, 2)]).untested[0].untested == "no image of class 2"


def test_too_few_sources_are_named_and_nothing_is_claimed():
    found = scan(Decoys(), sources=7)
    assert all("7 sources, of 8" in pair.untested and len(pair.drop) == 4 for pair in found.pairs)
    with pytest.raises(DataError, match="7 sources, of 8"):
        found.suspects()


def table(p_values, drops=(0.5, 0.2)):
    pairs = tuple(PairScan(i, i + 1, 20, 50, drops, row, None) for i, row in enumerate(p_values))
    return ClassScan(pairs, PatchGrid((4, 8), 4, 4), 100, 7)


def test_items_may_be_dicts():
    class Dicts(Decoys):
        def __getitem__(self, index):
            image, target, _ = super().__getitem__(index)
            return {"image": image, "target": target, "file": f"{index}.png"}

    torch.manual_seed(3)
    tuples = scan(Decoys())
    torch.manual_seed(3)
    assert scan(Dicts()).pairs == tuples.pairs


def test_p_values_are_corrected_over_all_pairs_and_positions():
    found = table([(0.001, 0.9), (0.02, 0.8)])
    assert [each.p_value for each in found.suspects(alpha=0.01)] == [pytest.approx(4 * 0.001)]
    assert [each.p_value for each in found.suspects(alpha=0.1)] == [pytest.approx(4 * 0.001), pytest.approx(3 * 0.02)]
    assert found.suspects(alpha=0.1, min_drop=0.6) == []


def test_the_table_prints_the_suspects_and_what_was_scanned():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table([(0.001, 0.9), (0.02, 0.8)]).table())
    text = " ".join(console.export_text().split())
    for words in ("0.500", "0.004", "T = 100", "N = 50", "S = 20", "seed 7", "2 pairs of classes, 0 of them untested"):
        assert words in text


@pytest.mark.parametrize("n", [600, 6000])
def test_memory_does_not_grow_with_the_data_set(n):
    """However many images are read, only those kept and one batch are alive at a time."""
    alive = weakref.WeakSet()
    most = 0

    class Endless(Decoys):
        def __len__(self):
            return n

        def __getitem__(self, index):
            nonlocal most
            image = torch.zeros(1, 2, 2)
            alive.add(image)
            most = max(most, len(alive))
            return image, index % 2

    # One class never has enough, so that all is read.
    pools = draw_pools(Endless(3), lambda x: torch.ones(len(x), dtype=torch.long), [0, 1], 5, 20, 0)
    assert [len(pools[k].sources) for k in (0, 1)] == [0, 5]
    assert 256 <= most <= 2 * 256 + 45


def test_a_scan_of_classes_leaves_the_model_as_it_was():
    network, data = decoy_reader(), Decoys(30)
    state = torch.get_rng_state()
    scan(data, network, passes=3)
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state) and network[2].weight.grad is None


BAD = {
    "a pair of one class": ({"pairs": [(1, 1)]}, RangeError, r"the pair \(1, 1\)"),
    "a class out of range": ({"pairs": [(0, 3)]}, RangeError, "a class=3"),
    "a broken class": ({"pairs": [(0, 1.0)]}, TypeMismatchError, "a class=1.0"),
    "no pairs": ({"pairs": []}, TypeMismatchError, r"pairs=\[\]"),
    "too many pairs": ({"pairs": 7}, RangeError, "pairs=7"),
    "three classes": ({"pairs": [(0, 1, 2)]}, TypeMismatchError, "each"),
    "no sources": ({"sources": 0}, RangeError, "sources=0"),
    "no targets": ({"targets": 0}, RangeError, "targets=0"),
    "a large patch": ({"patch_size": 9}, RangeError, "patch_size=9"),
    "no passes": ({"passes": 0}, RangeError, "passes=0"),
    "two dropouts": ({"dropout": 0.5}, RangeError, "that has dropout"),
    "no folder": ({"path": "nowhere/pairs.jsonl"}, DataError, "a folder that exists"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_clear_error(name):
    options, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        scan(Decoys(), **options)


@pytest.mark.parametrize(
    ("items", "kind", "words"),
    [
        ([], DataError, "an empty data set"),
        ([(torch.rand(1, 8, 8), 0, 0), 5], TypeMismatchError, "an item of int"),
        ([(torch.rand(8, 8), 0)], TypeMismatchError, "an item of tuple"),
        ([(torch.zeros(1, 8, 8, dtype=torch.uint8), 0)], TypeMismatchError, "an item of tuple"),
        ([{"image": torch.rand(1, 8, 8)}], TypeMismatchError, "an item of dict"),
        ([(torch.rand(1, 8, 8), "cat")], TypeMismatchError, "an item of tuple"),
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 9, 8), 1)], ShapeError, "one size"),
    ],
)
def test_a_data_set_of_something_else_is_one_clear_error(items, kind, words):
    with pytest.raises(kind, match=words):
        scan(items)


def test_a_network_without_dropout_is_one_clear_error():
    with pytest.raises(ModelError, match="without dropout"):
        scan(Decoys(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
