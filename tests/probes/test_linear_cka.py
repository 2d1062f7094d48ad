"""Linear CKA: the paper's number and its invariances, however the rows come."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.probes import linear_cka
from attribguard.probes.linear_cka import LinearCKA
from tests.oracles import as_array
from tests.probes.similarity_oracles import cka_by_gram_matrices
from tests.strategies import generator, seeds


def measure(*representations, parts=1):
    cka = LinearCKA([rows.shape[1] for rows in representations])
    for part in zip(*(rows.tensor_split(parts) for rows in representations), strict=True):
        cka.update(part)
    return cka.compute()


def rows_of(seed, widths, n=9):
    """Related representations: each a noisy linear function of the first."""
    source = generator(seed)
    first = torch.randn(n, widths[0], generator=source, dtype=torch.float64)
    others = [first @ torch.randn(widths[0], w, generator=source, dtype=torch.float64) for w in widths[1:]]
    return [first, *(rows + torch.randn(rows.shape, generator=source, dtype=torch.float64) for rows in others)]


widths = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(seeds, widths, st.integers(1, 9))
def test_it_is_the_paper_s_whatever_parts_the_rows_come_in(seed, widths, parts):
    rows = rows_of(seed, widths)
    expected = [[cka_by_gram_matrices(as_array(a), as_array(b)) for a in rows] for b in rows]
    np.testing.assert_allclose(measure(*rows, parts=parts), expected, rtol=1e-10, atol=1e-12)


def test_rows_beyond_what_stands_in_float64_at_once_count_too(monkeypatch):
    rows = rows_of(0, [3, 4], n=11)
    at_once = measure(*rows)
    monkeypatch.setattr(linear_cka, "_ROWS", 4)
    torch.testing.assert_close(measure(*rows, parts=2), at_once, rtol=1e-12, atol=0)


@given(seeds, widths, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_rotating_scaling_and_shifting_a_representation_change_nothing(seed, widths, scale, shift):
    rows = rows_of(seed, widths)
    rotation, _ = torch.linalg.qr(torch.randn(widths[1], widths[1], generator=generator(seed + 1), dtype=torch.float64))
    moved = [rows[0], scale * rows[1] @ rotation + shift, *rows[2:]]
    torch.testing.assert_close(measure(*moved), measure(*rows), rtol=1e-7, atol=1e-9)


def test_scaling_one_channel_changes_it():
    rows = rows_of(0, [3, 3])
    stretched = rows[1] * torch.tensor([1.0, 1.0, 5.0])
    assert abs(measure(rows[0], stretched)[0, 1] - measure(*rows)[0, 1]) > 0.01


@given(seeds, widths)
def test_it_is_symmetric_within_bounds_and_1_with_itself(seed, widths):
    cka = measure(*rows_of(seed, widths))
    torch.testing.assert_close(cka, cka.T)
    torch.testing.assert_close(cka.diagonal(), torch.ones(len(widths), dtype=torch.float64))
    assert (cka >= 0).all() and (cka <= 1 + 1e-12).all()


def test_uncorrelated_channels_have_similarity_0():
    x = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    y = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert measure(x, y)[0, 1] == 0


def test_a_large_mean_costs_no_precision():
    rows = rows_of(0, [3, 4], n=50)
    far = [part + 1e6 for part in rows]
    torch.testing.assert_close(measure(*far, parts=5), measure(*rows), rtol=1e-8, atol=0)


def test_features_that_never_vary_have_none():
    cka = measure(torch.zeros(5, 2), torch.arange(5.0)[:, None])
    assert cka.isnan().tolist() == [[True, True], [True, False]]


def test_half_precision_is_only_where_the_rows_come_from():
    rows = [part.half() for part in rows_of(0, [3, 4])]
    torch.testing.assert_close(measure(*rows), measure(*(part.double() for part in rows)), rtol=0, atol=0)


def test_fewer_than_two_rows_give_none():
    assert LinearCKA([2, 3]).compute().isnan().all()
    assert measure(torch.ones(1, 2), torch.ones(1, 3)).isnan().all()
