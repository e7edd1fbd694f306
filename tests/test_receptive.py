"""Receptive fields are what a gradient shows, and what MatConvNet's displays print."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parity.layers import (
    LRN,
    Activation,
    AffineGridGenerator,
    BilinearSampler,
    Concat,
    Context,
    Conv,
    ConvTranspose,
    Crop,
    Kind,
    Merge,
    Opaque,
    Pad,
    Pool,
)
from parity.layers.base import Reach
from parity.network import Layer, Network
from parity.receptive import activation_bytes, receptive_fields


def chain(*kinds: Kind) -> Network:
    layers = tuple(
        Layer(f"l{i}", kind, (f"l{i - 1}" if i else "x",), (f"l{i}",), {}, (4, 5, 2)) for i, kind in enumerate(kinds)
    )
    return Network("chain", "matconvnet", {"x": (40, 40, 1)}, (layers[-1].output,), layers, {})


def graph(*layers: tuple[str, Kind, tuple[str, ...]], **inputs: tuple[int, ...]) -> Network:
    made = tuple(Layer(name, kind, read, (name,)) for name, kind, read in layers)
    return Network("graph", "matconvnet", inputs or {"x": (40, 40, 1)}, (made[-1].output,), made, {})


CHAINS = {
    "one": (Conv(1, (3, 5), (1, 2)),),
    "padded": (
        Conv(1, (3, 3), (1, 1), (1, 1, 1, 1)),
        Pool("avg", (2, 2), (2, 2)),
        Conv(1, (5, 4), (1, 1), (2, 0, 1, 1)),
    ),
    "dilated": (Conv(1, (3, 3), (2, 1), (0, 1, 2, 0), (2, 3)), Pool("avg", (3, 2), (2, 1), (1, 0, 0, 1))),
    "moved": (Pad((2, 1, 0, 3)), Conv(1, (3, 3), (2, 2)), Crop((1, 0, 2, 1)), Conv(1, (2, 2))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_gradient_covers_just_the_field(name: str) -> None:
    kinds = CHAINS[name]
    field = receptive_fields(chain(*kinds))[f"l{len(kinds) - 1}"]
    x = torch.ones(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    y = x
    for kind in kinds:
        kernel = {"kernel": torch.ones(*kind.size, 1, 1, dtype=torch.float64)} if isinstance(kind, Conv) else {}
        y = kind.forward([y], kernel, Context())
    at = (3, 4)
    y[0, 0, at[0], at[1]].backward()
    rows, columns = np.nonzero(x.grad[0, 0].numpy())
    for axis, seen in enumerate((rows, columns)):
        centre = field.offset[axis] + at[axis] * field.stride[axis]
        assert seen.max() - seen.min() + 1 == field.size[axis]
        assert (seen.max() + seen.min()) / 2 + 1 == centre


def test_the_field_of_a_sum_is_the_union_of_its_branches() -> None:
    found = receptive_fields(
        graph(
            ("a", Conv(1, (3, 3), (2, 2), (1, 1, 1, 1)), ("x",)),
            ("b", Conv(1, (5, 1), (1, 1), (0, 0, 0, 0)), ("a",)),
            ("sum", Merge("add"), ("b", "a")),
        )
    )
    assert found["b"] == Reach((11.0, 3.0), (2.0, 2.0), (5.0, 1.0))
    assert found["sum"] == Reach((11.0, 3.0), (2.0, 2.0), (5.0, 1.0))


def test_branches_of_two_strides_have_no_common_field() -> None:
    found = receptive_fields(graph(("a", Pool("max", (2, 2), (2, 2)), ("x",)), ("both", Concat(), ("a", "x"))))
    assert "a" in found
    assert "both" not in found


def test_a_transposed_convolution_as_matconvnet_counts_it() -> None:
    field = receptive_fields(chain(ConvTranspose(1, (4, 4), (2, 2), (1, 1, 1, 1))))["l0"]
    assert field == Reach((2.5, 2.5), (0.5, 0.5), (0.75, 0.75))
    back = receptive_fields(chain(Pool("max", (2, 2), (2, 2)), ConvTranspose(1, (2, 2), (2, 2))))["l1"]
    assert back.stride == (1.0, 1.0)


def test_a_crop_sees_its_first_input_only() -> None:
    found = receptive_fields(
        graph(
            ("a", Conv(1, (3, 3)), ("x",)),
            ("b", Pool("max", (8, 8), (4, 4)), ("x",)),
            ("cut", Crop((2, 1, 2, 1), (2, 2)), ("a", "b")),
        )
    )
    assert found["cut"] == Reach((3.0, 3.0), (1.0, 1.0), (4.0, 4.0))


def test_nothing_is_said_behind_what_nobody_knows() -> None:
    found = receptive_fields(
        graph(
            ("code", Opaque("custom"), ("x",)),
            ("relu", Activation("relu"), ("code",)),
            ("lrn", LRN(), ("x",)),
            ("grid", AffineGridGenerator(4, 4), ("theta",)),
            ("sampled", BilinearSampler(), ("lrn", "grid")),
            x=(40, 40, 1),
            theta=(1, 1, 6),
        )
    )
    assert set(found) == {"x", "lrn"}
    with pytest.raises(KeyError):
        receptive_fields(chain(Conv(1)), "nothing")


def test_memory() -> None:
    network = chain(Conv(1))
    assert activation_bytes(network["l0"]) == 160
    assert activation_bytes(Layer("open", Conv(1), ("x",), ("open",), {}, (None, 5, 2))) is None
