"""What differs without changing any number here: how weights were drawn, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from parity.case import Comparison
from parity.network import Param
from parity.report import Finding
from parity.rules.base import finding
from parity.transfer import Link
from parity.wording import listed

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Notes on initializers and metrics, and on what was put right when a file was read."""
    yield from _initializers(run)
    yield from _metrics(run)
    yield from _put_right(run)


def _put_right(run: Comparison) -> Iterator[Finding]:
    """Kernels that were turned before anything was compared, because the file comes from Theano."""
    for runner in (run.ref, run.keras):
        for remark in runner.network.remarks:
            cause, _, words = remark.partition(": ")
            if cause == "kernel-flip":
                yield finding(cause, "note", "weights", f"{words[0].upper()}{words[1:]}.", confirmed=True)


def _initializers(run: Comparison) -> Iterator[Finding]:
    """An untrained reference (all biases zero) shows how its weights were drawn: against what Keras says it does."""
    values = run.ref.params()
    of = {role: [link for link in run.links if link.role == role] for role in ("kernel", "bias")}
    # A recorded kernel may be too large to be read.
    kernels = [link for link in of["kernel"] if len(link.ref) == 1 and link.keras and link.ref[0] in values]
    biases = [values[key] for link in of["bias"] for key in link.ref if key in values]
    if not kernels or any(np.any(b) for b in biases):
        return
    other: list[tuple[Link, str, str]] = []
    for link in kernels:
        keras = run.keras.network.params[link.keras]
        said = _law(keras, run.keras.network.params[link.keras].shape)
        if said is None:
            continue
        value = values[link.ref[0]].astype(np.float64)
        shape, spread = _shape_of_law(value), float(value.std())
        if value.size < 64 or not math.isfinite(spread):
            continue
        expected_shape, expected_spread, words = said
        apart = abs(math.log(max(spread, 1e-30) / max(expected_spread, 1e-30)))
        if not _alike(shape, expected_shape, value.size) or apart > _tolerance(value.size):
            other.append((link, f"{shape}, standard deviation {spread:.3g}", words))
    if not other:
        return
    link, mine, theirs = other[0]
    spread = float(np.mean([values[o[0].ref[0]].std() for o in other]))
    law = mine.split(",")[0]
    maker = "RandomNormal(stddev" if law == "normal" else "RandomUniform(-{0:.3g}, {0:.3g}"
    fix = (
        f"kernel_initializer=keras.initializers.{maker}={spread:.3g})"
        if law == "normal"
        else "kernel_initializer=keras.initializers." + maker.format(spread * math.sqrt(3)) + ")"
    )
    yield finding(
        "initializer",
        "note",
        "weights",
        f"The reference's own weights look drawn as {mine} ({link.pair.ref.name}); Keras draws {theirs}. It matters "
        f"for training from scratch, not for this comparison. So for {listed([o[0].pair.ref.name for o in other])}.",
        pair=link.pair,
        fix=fix,
    )


def _alike(shape: str, expected: str, count: int) -> bool:
    """Whether a sample's law may be this one: few values do not tell one law from another."""
    if shape == expected or (count <= 2000 and {shape, expected} == {"normal", "truncated normal"}):
        return True
    return count < 500 and shape != "constant"


_SAMPLE = 100_000
"""Elements that are enough to tell a normal from a uniform law."""


def _tolerance(count: int) -> float:
    """How far (logarithm of the ratio) a sample's deviation may lie from the law's: five standard errors and 3 %."""
    return 0.03 + 5 / math.sqrt(2 * count)


def _shape_of_law(value: np.ndarray) -> str:
    """Normal, truncated normal, uniform, or constant, by the kurtosis of the sample (3, 2.4, 1.8)."""
    if value.size > _SAMPLE:
        value = value.reshape(-1)[:: value.size // _SAMPLE]
    centred = value - value.mean()
    variance = float(np.mean(centred**2))
    if variance == 0:
        return "constant"
    kurtosis = float(np.mean(centred**4)) / variance**2
    if kurtosis < 2.1:
        return "uniform"
    return "truncated normal" if kurtosis < 2.65 and value.size > 2000 else "normal"


def _law(param: Param, shape: tuple[int, ...]) -> tuple[str, float, str] | None:
    """(shape of the law, standard deviation, words) of a Keras initializer for a kernel of this shape."""
    name = (param.initializer or "").lower().replace("_", "")
    receptive = math.prod(shape[:-2]) if len(shape) > 2 else 1
    if len(shape) < 2:
        return None
    fan_in, fan_out = shape[-2] * receptive, shape[-1] * receptive
    for prefix, fan in (("glorot", (fan_in + fan_out) / 2), ("he", fan_in / 2), ("lecun", fan_in)):
        if name.startswith(prefix):
            law = "uniform" if "uniform" in name else "truncated normal"
            return law, math.sqrt(1 / fan), f"{param.initializer} ({law}, standard deviation {math.sqrt(1 / fan):.3g})"
    return _plain_law(param.initializer or "")


def _plain_law(text: str) -> tuple[str, float, str] | None:
    """The same of a law whose numbers are given, such as `RandomNormal(mean=0, stddev=0.05)`."""
    name, _, rest = text.partition("(")
    try:
        given = {key.strip(): float(value) for key, value in (part.split("=") for part in rest.rstrip(")").split(","))}
    except ValueError:
        given = {}
    if name in ("RandomNormal", "TruncatedNormal"):
        cut = 0.8796 if name == "TruncatedNormal" else 1.0  # what cutting at two deviations leaves of one
        spread = given.get("stddev", 0.05) * cut
        return ("normal" if cut == 1 else "truncated normal"), spread, f"{text} (standard deviation {spread:.3g})"
    if name == "RandomUniform":
        spread = (given.get("maxval", 0.05) - given.get("minval", -0.05)) / math.sqrt(12)
        return "uniform", spread, f"{text} (standard deviation {spread:.3g})"
    return None


def _metrics(run: Comparison) -> Iterator[Finding]:
    keras = run.keras.recipe.metrics
    if not keras or not run.ref.recipe.metrics:
        return
    binary = [m for m in keras if "binary" in m.lower() and m not in run.ref.recipe.metrics]
    shape = run.keras.network.producers.get(run.keras.network.outputs[0]) if run.keras.network.outputs else None
    outputs = shape.shape[-1] if shape is not None and shape.shape else None
    if binary and outputs is not None and outputs >= 2:
        wanted = "sparse_categorical_accuracy" if _sparse(run) else "categorical_accuracy"
        yield finding(
            "metric",
            "note",
            "loss",
            f"Keras counts {', '.join(binary)}: each of the {outputs} outputs against 0.5 by itself. The reference "
            f"counts {run.ref.recipe.metrics[0]}. {_sameness(outputs)}",
            fix=f"metrics=['{wanted}']",
        )


def _sameness(outputs: int) -> str:
    if outputs == 2:
        return "They agree only while the two outputs are probabilities that add up to 1 and the labels are one-hot."
    return "The two percentages are not the same quantity."


def _sparse(run: Comparison) -> bool:
    loss = run.keras.recipe.loss
    return bool(loss is not None and loss.sparse)
