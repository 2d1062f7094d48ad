import pytest
import torch
import torch.nn.functional as F

from attribguard.errors import ModelError
from attribguard.probes.patch_swap.dropout_calls import DropoutCall, Dropouts, find_dropouts
from attribguard.probes.patch_swap.dropout_masks import Masked, Masks, factors
from tests.probes.patch_swap.one_pass_at_a_time import CASES, draw_masks

CPU = torch.device("cpu")


def call(p=0.5, alpha=False, shape=(1, 6), number=0):
    return DropoutCall(number, p, alpha, 0, shape, shape)


@pytest.mark.parametrize("dropped", [F.dropout, F.dropout2d, F.alpha_dropout, F.feature_alpha_dropout])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_scale_and_shift_give_what_torch_makes_of_the_same_mask(dropped, p):
    x = torch.randn(50, 8, 3, 3, dtype=torch.float64)
    alpha = "alpha" in dropped.__name__
    expected = dropped(x, p, True)
    # What is dropped is the same everywhere: 0, or alpha dropout's floor.
    gone = expected.flatten().mode().values
    keep = expected != gone
    assert 0 < keep.sum() < keep.numel()
    scale, shift = factors(call(p, alpha), keep, x.dtype)
    torch.testing.assert_close(x * scale + shift, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("alpha", [True, False])
def test_dropping_all_leaves_zeros_as_in_torch(alpha):
    x = torch.randn(4, 6)
    scale, shift = factors(call(1.0, alpha), torch.zeros(4, 6, dtype=torch.bool), x.dtype)
    expected = (F.alpha_dropout if alpha else F.dropout)(x, 1.0, True)
    assert torch.equal(x * scale + shift, expected)


def test_pass_t_has_one_mask_for_all_images_and_another_one_than_other_passes():
    dropouts = Dropouts((call(shape=(1, 40)), call(0.2, shape=(1, 50), number=1)), 2)
    masks = Masks(dropouts, 12, 7, False, CPU)
    first, second = masks.keep(5)
    assert first.shape == (12, 1, 40) and second.shape == (12, 1, 50)
    assert len(first.unique(dim=0)) == len(second.unique(dim=0)) == 12
    again = masks.keep(3)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])


def test_masks_keep_each_entry_with_the_share_that_is_not_dropped():
    (keep,) = Masks(Dropouts((call(0.2, shape=(1, 500)),), 1), 400, 0, False, CPU).keep(1)
    share = keep.float().mean()
    assert abs(share - 0.8) < 5 * (0.2 * 0.8 / 200_000) ** 0.5
    assert abs(keep.float().mean(0) - 0.8).max() < 5 * (0.2 * 0.8 / 400) ** 0.5


def test_fewer_passes_see_the_first_of_the_same_masks_and_another_seed_sees_others():
    dropouts = Dropouts((call(shape=(1, 40)),), 1)
    (many,) = Masks(dropouts, 9, 3, False, CPU).keep(1)
    (few,) = Masks(dropouts, 4, 3, False, CPU).keep(1)
    (other,) = Masks(dropouts, 9, 4, False, CPU).keep(1)
    assert torch.equal(few, many[:4]) and not torch.equal(other, many)


def test_independent_masks_differ_between_images_and_batches():
    masks = Masks(Dropouts((call(shape=(1, 40)),), 1), 3, 0, True, CPU)
    (one,), (two,) = masks.keep(5), masks.keep(5)
    assert one.shape == (3, 5, 40)
    assert len(torch.cat([one, two], 1).flatten(0, 1).unique(dim=0)) == 30


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("name", CASES)
def test_a_masked_pass_multiplies_every_image_by_the_same_mask(name, images):
    case = CASES[name]()
    network, x = case.network.eval(), torch.randn(images, 1, 8, 8)
    dropouts = find_dropouts(network, network, x)
    drawn = draw_masks(5, 1, case.masks)[0]
    keeps = [keep.view(call.noise) for keep, call in zip(drawn, dropouts.live, strict=True)]
    with torch.no_grad(), Masked(dropouts, images, keeps) as masked:
        logits = network(x.clone())
    masked.check()
    with torch.no_grad():
        expected = torch.cat([case.by_hand(image[None], keeps) for image in x])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_without_masks_nothing_is_dropped_not_even_by_calls_that_are_always_on():
    x = torch.randn(3, 6)
    with Masked(Dropouts((call(),), 1), 3, None):
        assert torch.equal(F.dropout(x, 0.5, True), x)


def test_a_dropout_in_place_changes_its_tensor():
    x, keep = torch.ones(3, 6), torch.tensor([[True, False] * 3])
    with Masked(Dropouts((call(),), 1), 3, [keep]):
        F.dropout(x, 0.5, True, inplace=True)
    assert torch.equal(x, torch.tensor([[2.0, 0.0] * 3] * 3))


def test_another_shape_or_number_of_calls_is_one_clear_error():
    keeps = [torch.ones(1, 6, dtype=torch.bool)]
    with pytest.raises(ModelError, match="dropout 0 on a tensor of shape"), Masked(Dropouts((call(),), 1), 3, keeps):
        F.dropout(torch.ones(3, 7), 0.5, True)
    with Masked(Dropouts((call(),), 2), 3, keeps) as masked:
        F.dropout(torch.ones(3, 6), 0.5, True)
    with pytest.raises(ModelError, match="1 calls of dropout"):
        masked.check()
