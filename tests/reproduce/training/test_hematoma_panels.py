import torch
from torch import nn

from attribguard.data import HematomaPhantom
from attribguard.reproduce.training.hematoma_panels import panel_maps, panels

SETTINGS = {"test": 40, "size": 64}


def test_panels_are_the_first_slices_with_an_island_of_either_test():
    shown = panels(SETTINGS)
    assert [panel.title for panel in shown] == [
        "new patient 1",
        "new patient 2",
        "unseen hospital 1",
        "unseen hospital 2",
    ]
    data = HematomaPhantom("unseen", 40, 64, 0)
    items = [item for item in (data[index] for index in range(len(data))) if item["target"] == 1]
    assert torch.equal(shown[3].image, items[1]["image"][0])
    assert shown[1].outline.any() and not shown[3].outline.any()  # nobody has annotated the unseen hospitals


def test_maps_are_of_what_speaks_for_an_island_in_the_prepared_image():
    network = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
    maps = panel_maps(network.eval(), SETTINGS, torch.device("cpu"), lambda images: images * 0 + 1)
    assert set(maps) == {panel.title for panel in panels(SETTINGS)}
    for cells in maps.values():
        assert torch.tensor(cells).shape == (2, 2) and torch.tensor(cells).unique().numel() == 1
