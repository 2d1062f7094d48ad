import pytest
import torch

from attribguard.errors import ModelError, RangeError, TypeMismatchError
from attribguard.models import swin_backbone
from tests.models.weight_files import write_weights

SMALL = {"img_size": 32, "depths": (1, 2), "embed_dim": 12, "num_heads": (1, 2)}


@pytest.fixture(scope="module")
def file_and_whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "swin_tiny.pth"
    return path, write_weights("swin_tiny_patch4_window7_224", path)


def features_by_hand(whole, x):
    """The pooled features of the whole network with the last four blocks of its third stage left out."""
    x = whole.patch_embed(x)
    for number, stage in enumerate(whole.layers):
        x = stage.downsample(x)
        for block in stage.blocks[: 2 if number == 2 else None]:
            x = block(x)
    return whole.norm(x).mean((1, 2))


def test_the_default_is_the_published_size():
    assert sum(p.numel() for p in swin_backbone().parameters()) == 20_413_386


@pytest.mark.parametrize(("num_classes", "width"), [(0, 24), (3, 3)])
def test_shapes_follow_the_options(num_classes, width):
    model = swin_backbone(num_classes, in_chans=2, **SMALL)
    assert model(torch.rand(2, 2, 32, 32)).shape == (2, width)


def test_images_may_be_oblong_and_windows_of_another_size():
    model = swin_backbone(**{**SMALL, "img_size": (24, 40), "window_size": 3})
    assert model(torch.rand(1, 3, 24, 40)).shape == (1, 24)
    assert model.layers[0].blocks[0].window_size == (3, 3)


def test_heads_divide_the_channels_of_their_own_stage():
    model = swin_backbone(**{**SMALL, "num_heads": (1, 8)})  # 12 and 24 channels
    assert model.layers[1].blocks[0].attn.num_heads == 8


def test_drop_path_rises_linearly():
    model = swin_backbone(drop_path=0.3, img_size=32, depths=(1, 1, 1, 1), embed_dim=12, num_heads=(1, 1, 1, 1))
    rates = [getattr(stage.blocks[0].drop_path1, "drop_prob", 0.0) for stage in model.layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_pretrained_blocks_are_the_first_ones_of_swin_tiny(file_and_whole):
    path, whole = file_and_whole
    model = swin_backbone(pretrained=True, pretrained_cfg_overlay={"file": str(path)}).eval()
    x = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(model(x), features_by_hand(whole, x), rtol=1e-4, atol=1e-4)


def test_pretrained_weights_fit_other_channels_sizes_and_a_new_classifier(file_and_whole):
    path, whole = file_and_whole
    options = {"img_size": 64, "in_chans": 1, "pretrained_cfg_overlay": {"file": str(path)}}
    model = swin_backbone(3, pretrained=True, **options)
    colours = whole.patch_embed.proj.weight
    torch.testing.assert_close(model.patch_embed.proj.weight, colours.sum(1, keepdim=True))
    assert torch.equal(model.norm.weight, whole.norm.weight)
    assert model(torch.rand(1, 1, 64, 64)).shape == (1, 3)


def test_sizes_without_pretrained_weights_are_refused(file_and_whole):
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file_and_whole[0])}}
    with pytest.raises(ModelError, match=r"layers\.2\.blocks\.6"):
        swin_backbone(depths=(2, 2, 7, 2), **options)
    with pytest.raises(RangeError, match="embed_dim=48; needed 96 or 128"):
        swin_backbone(embed_dim=48, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_classes": -1}, "num_classes"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"in_chans": 0}, "in_chans"),
        ({"img_size": 3}, "img_size"),
        ({"img_size": 30}, "a multiple of 4"),
        ({"img_size": (32, 30)}, "a multiple of 4"),
        ({"img_size": (32, 32, 32)}, "two of them"),
        ({"window_size": 0}, "window_size"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"depths": (1, 0)}, r"depths\[1\]"),
        ({"depths": 2}, "depths=2"),
        ({"depths": (), "num_heads": ()}, "depths"),
        ({"num_heads": (1, 2, 4)}, "number of heads a stage"),
        ({"num_heads": (1, 5)}, "divides the channels"),
    ],
)
def test_bad_options_are_refused_by_name(options, named):
    with pytest.raises(RangeError, match=named):
        swin_backbone(**{**SMALL, **options})


def test_a_drop_path_that_is_no_number_is_refused():
    with pytest.raises(TypeMismatchError, match="drop_path"):
        swin_backbone(drop_path="0.2", **SMALL)
