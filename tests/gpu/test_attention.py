"""Fused attention on CUDA, whose kernels have no second derivative: the guard uses the plain form for that step."""

import copy

import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.contracts.every_term import guarded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FUSED = {"flash": SDPBackend.FLASH_ATTENTION, "memory-efficient": SDPBackend.EFFICIENT_ATTENTION}


def vit():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=32, depth=2).cuda()
    assert model.blocks[0].attn.fused_attn
    return model


def step(guard, x, y, mask):
    torch.manual_seed(3)
    with torch.autocast("cuda", dtype=torch.bfloat16):  # in which flash attention is available
        out = guard(x, y, mask=mask)
    out.loss.backward()
    (term,) = (value for name, value in out.terms.items() if name != "criterion")
    return term, torch.cat([p.grad.flatten() for p in guard.parameters() if p.grad is not None])


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("name", ["gradmask", "rrr projection", "hirescam projection", "integrated gradients"])
def test_a_penalty_on_gradients_equals_that_of_unfused_attention(name, backend):
    fused = vit()
    plain = copy.deepcopy(fused)
    for block in plain.blocks:
        block.attn.fused_attn = False
    x, y = torch.rand(2, 3, 32, 32, device="cuda"), torch.tensor([0, 1], device="cuda")
    mask = torch.zeros(2, 32, 32, device="cuda")
    mask[:, :16] = 1
    with sdpa_kernel([FUSED[backend], SDPBackend.MATH]):  # what the caller prefers outside of the guard
        (term, gradient), (expected, true_gradient) = (
            step(guarded([name], model), x, y, mask) for model in (fused, plain)
        )
    torch.testing.assert_close(term, expected, rtol=2e-2, atol=0)
    assert gradient.isfinite().all()
    assert (gradient - true_gradient).norm() <= 5e-2 * true_gradient.norm()


def test_the_fused_kernel_alone_has_no_second_derivative():
    """What the guard has to step around; if a new torch has one, the plain form is no longer needed."""
    model, x = vit(), torch.rand(2, 3, 32, 32, device="cuda", requires_grad=True)
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="derivative"):
            gradient.square().sum().backward()
