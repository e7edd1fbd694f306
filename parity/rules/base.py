"""What a rule is: it looks at one comparison and names causes, each with its evidence and its Keras fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.changes import Change
from parity.report import Finding

__all__ = ["Rule", "finding", "kernel_layouts", "shown"]

Array = np.ndarray


class Rule(Protocol):
    """A rule finds causes in a comparison; it changes nothing that others see."""

    def __call__(self, run: Comparison) -> Iterable[Finding]:
        """The findings of this rule."""
        ...


def finding(
    cause: str,
    severity: str,
    phase: str,
    evidence: str,
    *,
    pair: Pair | None = None,
    fix: str = "",
    confirmed: bool = False,
    changes: Sequence[Change] = (),
) -> Finding:
    """A finding at a pair, or at the recipe as a whole."""
    layer = pair.ref.name if pair else ""
    keras_layer = pair.keras.origin if pair else ""
    return Finding(cause, severity, layer, keras_layer, phase, evidence, fix, confirmed, changes=tuple(changes))


def shown(value: Any) -> str:
    """A field's value as a reader wants it: 3×3, [1 0 1 0], 1e-05."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        if all(isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str) for part in value):
            return ", ".join(f"{name} {shown(held)}" for name, held in value) or "none"
        if len(value) == 2 and all(isinstance(part, int) for part in value):
            return "×".join(str(v) for v in value)
        return "[" + " ".join(shown(v) if isinstance(v, float) else str(v) for v in value) + "]"
    return str(value)


def kernel_layouts(kernel: Array) -> Iterator[tuple[str, str, Array]]:
    """(cause, words, a kernel h w i o laid out that way) of the mistakes that importers make."""
    yield "kernel-flip", "rotated by 180°", kernel[::-1, ::-1]
    yield "kernel-hw-transpose", "with height and width swapped", kernel.swapaxes(0, 1)
    yield "kernel-io-transpose", "with inputs and outputs swapped", kernel.swapaxes(2, 3)
    yield "kernel-flip", "with height and width swapped and rotated", kernel[::-1, ::-1].swapaxes(0, 1)
    yield "channel-order", "with its input channels reversed", kernel[:, :, ::-1]
    yield "channel-order", "with its output channels reversed", kernel[..., ::-1]
