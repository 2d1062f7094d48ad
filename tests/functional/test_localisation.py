"""How much of a heat map lies in a region, against loops over pixels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import AttribGuardError, RangeError, ShapeError, TypeMismatchError
from attribguard.functional.attribution_maps import is_flat, normalize_attribution
from attribguard.functional.localisation import energy_inside, iobb, ior, pointing_game, soft_iobb, soft_ior
from tests.functional import localisation_oracles as slow
from tests.strategies import generator, seeds, small

NAN, INF = float("nan"), float("inf")
THRESHOLDS = [0.25, 0.5, 1.0]
SOFT = [soft_iobb, soft_ior]
ALL = [
    *SOFT,
    pointing_game,
    energy_inside,
    lambda a, r: iobb(a, r, THRESHOLDS)[:, 1],
    lambda a, r: ior(a, r, THRESHOLDS)[:, 1],
]


@st.composite
def maps_and_regions(draw, signed=False):
    """Maps (N, H, W) on a coarse grid of values, so that some are tied, flat or zero, and regions, some empty."""
    n, height, width = draw(small), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    source = generator(draw(seeds))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    maps = torch.randint(0, levels, (n, height, width), generator=source).double() / max(levels - 1, 1)
    if signed:
        maps = maps * 2 - 1
    share = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=n, max_size=n)))
    return maps, torch.rand(n, height, width, generator=source) < share.view(n, 1, 1)


def by_loops(oracle, maps, regions, *arguments):
    images = zip(maps.tolist(), regions.tolist(), strict=True)
    return torch.tensor([oracle(image, region, *arguments) for image, region in images], dtype=torch.float64)


def check(ours, expected):
    torch.testing.assert_close(ours, expected, equal_nan=True, rtol=1e-9, atol=1e-12)


@given(maps_and_regions())
def test_soft_overlap_equals_loops(drawn):
    maps, regions = drawn
    check(soft_iobb(maps, regions), by_loops(slow.overlap, maps, regions, "region"))
    check(soft_ior(maps, regions), by_loops(slow.overlap, maps, regions, "map"))


@given(maps_and_regions())
def test_thresholded_overlap_equals_loops(drawn):
    maps, regions = drawn
    for measure, per in ((iobb, "region"), (ior, "map")):
        ours = measure(maps, regions, THRESHOLDS)
        assert ours.shape == (len(maps), 3)
        for column, threshold in zip(ours.unbind(1), THRESHOLDS, strict=True):
            check(column, by_loops(slow.overlap_at, maps, regions, threshold, per))


@given(maps_and_regions(signed=True), st.integers(0, 4))
def test_pointing_game_and_energy_equal_loops(drawn, tolerance):
    maps, regions = drawn
    check(pointing_game(maps, regions, tolerance), by_loops(slow.pointing, maps, regions, tolerance))
    check(energy_inside(maps, regions), by_loops(slow.energy, maps, regions))


@given(maps_and_regions())
def test_every_measure_lies_between_0_and_1_or_is_nan(drawn):
    maps, regions = drawn
    empty = ~regions.flatten(1).any(1)
    flat = maps.amax((1, 2)) == maps.amin((1, 2))
    for measure in ALL:
        for dtype in (torch.float32, torch.float16):
            values = measure(maps.to(dtype), regions)
            assert values.dtype == torch.float32
            assert bool(values[empty | flat].isnan().all())
            defined = values[~values.isnan()]
            assert bool(((defined >= 0) & (defined <= 1)).all())
        assert not bool(soft_iobb(maps, regions)[~empty & ~flat].isnan().any())


@given(maps_and_regions(), seeds)
def test_a_larger_region_never_holds_less_of_the_map(drawn, seed):
    maps, regions = drawn
    larger = regions | (torch.rand(regions.shape, generator=generator(seed)) < 0.3)
    for measure in (soft_ior, energy_inside, pointing_game, lambda a, r: ior(a, r, [0.5])[:, 0]):
        before, after = measure(maps, regions), measure(maps, larger)
        assert bool(((after >= before) | before.isnan()).all())


@given(maps_and_regions(), seeds)
def test_more_attribution_inside_never_lowers_soft_iobb_and_outside_never_raises_soft_ior(drawn, seed):
    maps, regions = drawn
    more = torch.rand(maps.shape, generator=generator(seed), dtype=maps.dtype)
    for measure, added, sign in ((soft_iobb, more * regions, 1), (soft_ior, more * ~regions, -1)):
        before, after = measure(maps, regions), measure(maps + added, regions)
        assert bool((sign * (after - before) >= -1e-12)[~before.isnan() & ~after.isnan()].all())


@given(maps_and_regions(signed=True), st.sampled_from([1e-12, 1e-3, 7.0, 1e9]), st.sampled_from(["minmax", "max"]))
def test_normalized_maps_do_not_depend_on_the_scale(drawn, scale, mode):
    maps, _ = drawn
    torch.testing.assert_close(normalize_attribution(scale * maps, mode), normalize_attribution(maps, mode))


@given(maps_and_regions(signed=True), st.sampled_from(["minmax", "max", "none"]))
def test_normalized_maps_equal_loops(drawn, mode):
    maps, _ = drawn
    ours = normalize_attribution(maps, mode)
    for image, result in zip(maps, ours, strict=True):
        if mode != "none" and (is_flat(image[None]) if mode == "minmax" else image.max() <= 0):
            assert not bool(result.any())
        else:
            check(result, torch.tensor(slow.normalized(image.tolist(), mode), dtype=torch.float64))


@given(maps_and_regions(signed=True))
def test_minmax_does_not_depend_on_an_offset_and_max_ignores_negative_values(drawn):
    maps, _ = drawn
    torch.testing.assert_close(normalize_attribution(maps + 3, "minmax"), normalize_attribution(maps, "minmax"))
    lowered = torch.where(maps < 0, 5 * maps, maps)
    torch.testing.assert_close(normalize_attribution(lowered, "max"), normalize_attribution(maps, "max"))


def test_the_two_normalisations_order_two_maps_differently():
    broad = torch.tensor([[[0.0, -4.0, 0.8, 1.0]]])
    narrow = torch.tensor([[[0.0, 0.0, 1.0, 0.9]]])
    region = torch.tensor([[[True, False, True, False]]])
    minmax, peak = (
        [soft_iobb(normalize_attribution(cam, mode), region).item() for cam in (broad, narrow)]
        for mode in ("minmax", "max")
    )
    assert minmax == pytest.approx([0.88, 0.5]) and peak == pytest.approx([0.4, 0.5])


def test_the_definitions_by_hand():
    cam = torch.tensor([[[0.0, 0.2], [0.4, 1.0]]])
    box = torch.tensor([[[False, False], [True, True]]])
    assert soft_iobb(cam, box).item() == pytest.approx(1.4 / 2)
    assert soft_ior(cam, box).item() == pytest.approx(1.4 / 1.6)
    assert iobb(cam, box, [0.4, 0.5])[0].tolist() == [1.0, 0.5]
    assert ior(cam, box, [0.2, 0.5])[0].tolist() == pytest.approx([2 / 3, 1.0])


def test_a_map_that_is_the_region_is_perfect():
    region = torch.rand(5, 7, 6) < 0.4
    for measure in ALL:
        assert measure(region.float(), region).tolist() == [1.0] * 5


def test_equal_maxima_share_the_hit_whatever_the_reading_order():
    cam = torch.tensor([[[1.0, 0.0, 1.0, 1.0]]])
    region = torch.tensor([[[1, 0, 0, 0]]])
    assert pointing_game(cam, region).item() == pytest.approx(1 / 3)
    assert pointing_game(cam.flip(2), region.flip(2)).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("column", "hit"), [(14, 1.0), (15, 0.0)])
def test_the_published_tolerance_takes_what_is_nearer_than_15_pixels(column, hit):
    cam, region = torch.zeros(1, 20, 40), torch.zeros(1, 20, 40)
    cam[0, 3, column] = 1
    region[0, 3, 0] = 1
    assert pointing_game(cam, region, 15).item() == hit


def test_the_tolerance_is_a_disc():
    cam, region = torch.zeros(2, 20, 20), torch.zeros(2, 20, 20)
    region[:, 0, 0] = 1
    cam[0, 3, 3] = cam[1, 4, 3] = 1  # 4.24 and 5 pixels away
    assert pointing_game(cam, region, 5).tolist() == [1.0, 0.0]


def test_energy_is_soft_ior_of_the_positive_part():
    cam, region = torch.randn(6, 5, 5), torch.rand(6, 5, 5) < 0.4
    torch.testing.assert_close(energy_inside(cam, region), soft_ior(cam.clamp(min=0), region))


def test_what_enlarging_makes_of_a_constant_map_is_flat():
    for mode in ("bilinear", "bicubic"):
        for level in (0.3, -1.7, 123.4):
            cam = F.interpolate(torch.full((1, 1, 7, 7), level), size=(225, 225), mode=mode, align_corners=True)[0]
            assert is_flat(cam).item()
            assert not bool(normalize_attribution(cam, "minmax").any())
    assert not is_flat(torch.tensor([[[1.0, 1.0001]]])).item()


def test_a_region_is_inside_from_one_half_on():
    cam = torch.tensor([[[0.2, 0.4, 1.0, 0.6]]])
    soft, hard = torch.tensor([[[0.49, 0.5, 1.0, 0.0]]]), torch.tensor([[[0, 1, 1, 0]]])
    for measure in ALL:
        assert measure(cam, soft).tolist() == measure(cam, hard).tolist() == measure(cam, hard.bool()).tolist()


def test_no_image_gives_no_value():
    for measure in ALL:
        assert measure(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)


GOOD, BOX = torch.tensor([[[0.0, 0.5], [0.2, 1.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize(
    ("attribution", "region", "kind", "words"),
    [
        (GOOD.where(GOOD != 0.5, NAN), BOX, RangeError, "nan or infinite in row 0"),
        (GOOD.where(GOOD != 0.5, INF), BOX, RangeError, "nan or infinite"),
        (GOOD.long(), BOX, TypeMismatchError, "int64"),
        (GOOD.tolist(), BOX, TypeMismatchError, "list"),
        (GOOD[:, None], BOX, ShapeError, r"attribution\[:, 0\]"),
        (torch.zeros(1, 0, 2), torch.zeros(1, 0, 2), ShapeError, "N, H, W"),
        (GOOD, BOX[:, :1], ShapeError, "the same shape"),
        (GOOD, BOX * NAN, RangeError, "outside"),
        (GOOD, BOX * 255, RangeError, "by 255"),
        (GOOD, BOX - 1, RangeError, "outside"),
        (GOOD, BOX.tolist(), TypeMismatchError, "list"),
        (GOOD, BOX + 0j, TypeMismatchError, "complex"),
    ],
)
def test_bad_input_is_one_clear_error(measure, attribution, region, kind, words):
    with pytest.raises(kind, match=words) as caught:
        measure(attribution, region)
    assert isinstance(caught.value, AttribGuardError)


@pytest.mark.parametrize("measure", SOFT)
def test_a_share_of_a_signed_map_is_refused(measure):
    with pytest.raises(RangeError, match=r"-0\.3"):
        measure(GOOD - 0.3, BOX)


@pytest.mark.parametrize("thresholds", [[], 0.5, [NAN], [0.5, INF]])
def test_thresholds_are_finite_numbers(thresholds):
    for measure in (iobb, ior):
        with pytest.raises(RangeError, match="thresholds"):
            measure(GOOD, BOX, thresholds)


@pytest.mark.parametrize("tolerance", [-1, 1.5, True])
def test_a_tolerance_is_a_whole_number_of_pixels(tolerance):
    with pytest.raises(RangeError, match="tolerance"):
        pointing_game(GOOD, BOX, tolerance)


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(RangeError, match="minmax"):
        normalize_attribution(GOOD, "softmax")
