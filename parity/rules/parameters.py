"""A parameter has no counterpart, or does not fit, although the layer's input does."""

from __future__ import annotations

from collections.abc import Iterable

from parity.align import Pair
from parity.case import Comparison
from parity.changes import Change
from parity.differences import differences
from parity.layers import Activation, BatchNorm, Conv, Rescale, SeparableConv
from parity.report import Finding
from parity.rules import repairs
from parity.rules.base import finding, shown
from parity.rules.explained import explanation
from parity.rules.lines import lines
from parity.rules.places import path
from parity.sharing import held_apart, held_together

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings for structure probes that a field alone does not explain."""
    for pair in run.alignment.pairs:
        yield from _along_another_axis(run, pair)
    yield from _apart(run)
    told: set[str] = set()
    for link in run.links:
        if not link.problem:
            continue
        pair = link.pair
        probe = next(
            (p for p in run.probes if p.phase == "structure" and p.layer == pair.ref.name and p.tensor == link.role),
            None,
        )
        if probe is None or probe.status in ("inherited", "unverified"):
            continue
        severity = "divergence" if probe.status == "born" else "note"
        if any(d.worded and d.field in ("use_bias", "center", "scale") for d in differences(pair)):
            continue  # said with the arguments of the two layers
        if not link.keras or not link.ref:
            yield _absent(
                run, link.role, pair, severity, link.problem, lacking="Keras" if not link.keras else "reference"
            )
        elif probe.status == "born" and link.role in _FILTERS and pair.ref.name not in told and not _explained(pair):
            told.add(pair.ref.name)
            changes = repairs.sized(run, pair)
            yield finding(
                "unknown",
                severity,
                "structure",
                f"{link.problem}{_sizes(pair)}: the reference's weights cannot be loaded.",
                pair=pair,
                fix=lines(run, changes) or f"{pair.keras.origin}: build it with the reference's filters and size",
                changes=changes,
            )


_FILTERS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def _sizes(pair: Pair) -> str:
    """How many filters of which size both sides have, where that is not the same."""
    ref, keras = pair.ref.kind, pair.keras.kind
    if isinstance(ref, SeparableConv) and isinstance(keras, SeparableConv) and ref.multiplier != keras.multiplier:
        return f" ({ref.multiplier} filters for each channel against {keras.multiplier})"
    if not isinstance(ref, Conv) or not isinstance(keras, Conv):
        return ""
    if (ref.filters, ref.size) == (keras.filters, keras.size):
        return ""
    return f" ({ref.filters} filters of {shown(ref.size)} against {keras.filters} of {shown(keras.size)})"


def _apart(run: Comparison) -> Iterable[Finding]:
    """Layers that the reference uses twice, and Keras has two of: no cause has this name."""
    told: set[str] = set()
    for apart in held_apart(run.links):
        pair, first = apart.link.pair, apart.first
        seen = any(
            p.layer == pair.ref.name and p.phase == "structure" and p.status == "born" and p.note == apart.note
            for p in run.probes
        )
        if pair.ref.name in told or not seen:
            continue
        told.add(pair.ref.name)
        yield finding(
            "unknown",
            "divergence",
            "structure",
            f"{first.ref.name} and {pair.ref.name} share their parameters in the reference, which the sum of both "
            f"gradients trains; {first.keras.origin} and {pair.keras.origin} hold theirs apart, and part at the first "
            "update.",
            pair=pair,
            fix=f"call {first.keras.origin} a second time in place of {pair.keras.origin}",
        )
    for first, pair in held_together(run.alignment.pairs):
        phase = next((p for p in ("forward", "backward", "update") if run.diverged(pair, p)), None)
        if phase is None:
            continue
        yield finding(
            "unknown",
            "divergence",
            phase,
            f"{first.ref.name} and {pair.ref.name} have parameters of their own in the reference; in Keras both are "
            f"{first.keras.origin}, which cannot hold the weights of two layers.",
            pair=pair,
            fix=f"give {pair.ref.name} a layer of its own in place of {pair.keras.origin}'s second call",
        )


def _along_another_axis(run: Comparison, pair: Pair) -> Iterable[Finding]:
    """A batch normalisation of rows or columns: Keras takes any axis for that of the channels."""
    ref, keras = pair.ref.kind, pair.keras.kind
    if not (isinstance(ref, BatchNorm) and isinstance(keras, BatchNorm)) or ref.axis == keras.axis:
        return
    phase = next((p for p in ("structure", "forward") if run.diverged(pair, p)), None)
    if phase is not None:
        changes = (Change("argument", path(run, pair.keras), {"axis": ref.axis}),)
        words = (
            f"{pair.keras.origin} normalises along axis {keras.axis}, counted from the end, and not by channel: each "
            "of its statistics and multipliers belongs to a row or a column."
        )
        yield finding("unknown", "divergence", phase, words, pair=pair, fix=lines(run, changes), changes=changes)


def _explained(pair: Pair) -> bool:
    return any(d.field == "groups" for d in differences(pair))


def _absent(run: Comparison, role: str, pair: Pair, severity: str, problem: str, *, lacking: str) -> Finding:
    if isinstance(pair.keras.kind, Rescale) and lacking == "Keras":
        words = f"The reference learns its {role}; {pair.keras.origin} has a constant in its place."
        fix = f"{pair.keras.origin}: a layer that learns it, such as DepthwiseConv2D(1)"
        return finding("layer-frozen", severity, "structure", words, pair=pair, fix=fix)
    if isinstance(pair.ref.kind, Activation) and role == "alpha" and lacking == "reference":
        return _learned_slope(run, pair, pair.ref.kind, severity)
    # A gamma is a layer's worth: Caffe has its normalisation without one, and a layer behind it that scales.
    multiplier = "layer-missing" if lacking == "Keras" else "layer-extra"
    cause = {"gamma": multiplier, **dict.fromkeys(("bias", "beta", "depthwise_bias"), "bias-missing")}.get(
        role, "unknown"
    )
    argument = {"bias": "use_bias", "beta": "center", "gamma": "scale"}.get(role, role)
    wanted = "True" if lacking == "Keras" else "False"
    trains = "" if severity == "note" else " It trains, so the two drift apart."
    origin = pair.keras.origin
    tried = explanation(run, pair) if severity == "divergence" else None
    changes = repairs.absent(run, pair, role, lacking=lacking)
    own = f"{origin}: {argument}={wanted}"
    if role == "depthwise_bias":
        own = f"{origin}: a DepthwiseConv2D, which has a bias, and a Conv2D of 1×1 in its place"
    return finding(
        cause,
        severity,
        "structure",
        f"{problem}.{trains}",
        pair=pair,
        fix=lines(run, changes) or own,
        confirmed=tried is not None and any(p.cause == cause for p in tried.proposals),
        changes=changes,
    )


def _learned_slope(run: Comparison, pair: Pair, kind: Activation, severity: str) -> Finding:
    """A PReLU for a rectifier: its slope has another value, or it has the same and will not keep it."""
    tried = explanation(run, pair) if severity == "divergence" else None
    slopes = [p for p in tried.proposals if p.cause.startswith("activation-")] if tried else []
    apart = run.diverged(pair, "forward", "backward")
    changes = repairs.activation(run, pair, kind)
    words = f"{pair.keras.origin} learns the slope of its negative part; the reference's {kind.function} has "
    words += f"{kind.slope:g} for good." + (f" {pair.keras.origin} {slopes[0].words}." if slopes else "")
    return finding(
        slopes[0].cause if slopes else "activation-kind",
        severity,
        "structure",
        words,
        pair=pair,
        fix=lines(run, changes),
        confirmed=bool(slopes) or not apart,
        changes=changes,
    )
