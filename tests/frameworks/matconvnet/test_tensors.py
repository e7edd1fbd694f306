"""Derivatives that start from given ones: torch's own, to the bit, without what torch imports for them."""

from __future__ import annotations

import sys

import pytest
import torch

from parity.frameworks.matconvnet.tensors import derivatives


def made(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.nn.functional.conv2d(x, w)
    return y, y.relu().mean((2, 3))


def test_they_are_torchs_own_and_need_no_sympy(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = ((4, 3, 5, 5), (6, 3, 3, 3), (2,))
    x, w, alone = (torch.randn(size, generator=generator).requires_grad_() for size in sizes)
    above = [torch.randn((4, 6, 3, 3), generator=generator), None]
    wanted = torch.autograd.grad(made(x, w), [x, w], [above[0], torch.ones(4, 6)])
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.symbolic_shapes", None)  # it imports sympy
    *found, none = derivatives(made(x, w), [x, w, alone], above)
    assert none is None
    for own, given in zip(wanted, found, strict=True):
        assert given is not None
        assert torch.equal(own, given)
        assert own.stride() == given.stride()
    y, _ = made(x, w)
    (itself,) = derivatives([y], [y], above[:1])
    assert itself is not None
    assert torch.equal(itself, above[0])
