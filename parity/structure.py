"""The phases before anything runs: do the inputs, the layers, their shapes and their parameters fit each other?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from parity.align import Alignment, Pair
from parity.distances import TINY
from parity.layers import BatchNorm, Loss, Rescale
from parity.layers.loss_words import as_signs
from parity.network import Shape
from parity.relation import related
from parity.report import Probe
from parity.sharing import held_apart
from parity.splits import splits
from parity.stretches import Tensor, joined, measure, stretches
from parity.tolerance import ROUNDOFF
from parity.transfer import Link, Turned
from parity.units import Unit, same_shape

__all__ = ["compare_inputs", "compare_labels", "compare_structure", "compare_weights"]

Array = np.ndarray

_BETWEEN = "may be among the operations outside of layers, which parity cannot run alone"


def compare_inputs(alignment: Alignment, ref: Mapping[str, Tensor], keras: Mapping[str, Tensor]) -> list[Probe]:
    """The `input` phase: whether both sides are given the same images (input → n h w c)."""
    made: list[Probe] = []
    for theirs, mine in alignment.inputs.items():
        if mine in ref and theirs in keras:
            names = ("input", "input") if len(ref) == len(keras) == 1 else (mine, theirs)
            made.append(_compare_input(*names, ref[mine], keras[theirs]))
    return made


def compare_labels(alignment: Alignment, ref: Mapping[str, Tensor], keras: Mapping[str, Tensor]) -> list[Probe]:
    """Whether both sides are given the same labels: a probe for each loss whose labels are not the same."""
    made: list[Probe] = []
    signs = {
        alignment.ref.label_of(layer)
        for layer in alignment.ref.losses
        if isinstance(layer.kind, Loss) and layer.kind.target == "signs"
    }
    for mine, theirs in alignment.labels.items():
        if mine not in ref or theirs not in keras:
            continue
        a, b = ref[mine], keras[theirs]
        if mine in signs:
            a, b = _attributes(a), _attributes(b)
        wrong, gap = True, ""
        if a.shape == b.shape:
            wrong, apart = _other_labels(a, b)
            gap = f"{apart} of {math.prod(a.shape)} differ"
        if wrong:
            names = ("input", "input") if len(ref) == 1 else (mine, theirs)
            made.append(Probe(*names, "input", "y", shape=a.shape, status="born", note=gap))
    return made


def _attributes(labels: Tensor) -> Array:
    """Labels of attributes (n, attributes) as -1 and +1, which one side may be given as 0 and 1."""
    values = as_signs(np.asarray(labels, np.float32))
    return values[:, None] if values.ndim == 1 else values


def _other_labels(ref: Tensor, keras: Tensor) -> tuple[bool, int]:
    """Whether two sets of labels differ where they count, and in how many places at all."""
    wrong, apart = False, 0
    for _, (a, b) in stretches(ref, keras):
        counted = np.ones(a.shape, bool) if a.dtype.kind == "f" else a >= 0  # -1 is ignored, by a weight in Keras
        wrong |= not np.array_equal(a[counted], b[counted])
        apart += int(np.count_nonzero(a != b))
    return wrong, apart


def _compare_input(name: str, keras_name: str, x_ref: Tensor, x_keras: Tensor) -> Probe:
    if x_ref.shape[0] != x_keras.shape[0] or math.prod(x_ref.shape) != math.prod(x_keras.shape):
        note = f"x_ref is {x_ref.shape}, x_keras {x_keras.shape}"
        return Probe(name, keras_name, "input", "x", shape=x_ref.shape, status="born", note=note)
    apart = joined(measure(x_keras, x_ref))
    floor = 2 * ROUNDOFF * max(apart.scale, TINY)
    x_floor = apart.x_floor(np.asarray(floor))
    return Probe(
        name,
        keras_name,
        "input",
        "x",
        shape=x_ref.shape,
        status="match" if x_floor <= 4 else "born",
        max_abs=apart.max_abs,
        rms_rel=apart.relative,
        floor=floor,
        isolated_x_floor=x_floor,
        propagated_x_floor=x_floor,
    )


def compare_structure(
    alignment: Alignment, all_links: tuple[Link, ...], values: Mapping[str, Tensor], *, training: bool
) -> list[Probe]:
    """The `structure` phase, in the reference's topological order: shapes, wiring, parameters that fit, lost layers.

    Args:
        alignment: who is whose partner.
        all_links: how parameters correspond.
        values: the reference's parameters by id.
        training: whether weights will move.
    """
    rows: list[tuple[float, list[Probe]]] = []
    places = {unit.name: float(i) for i, unit in enumerate(alignment.ref_units)}
    shapes = _Shapes(alignment)
    for pair in alignment.pairs:
        rows.append((places[pair.ref.name], _pair_probes(alignment, pair, all_links, values, shapes, training)))
    for apart in held_apart(all_links) if training else ():
        if _moves(alignment, apart.link):
            mine, theirs, role = apart.link.pair.ref, apart.link.pair.keras, apart.link.role
            shape = _known(mine.shape)
            probe = Probe(mine.name, theirs.origin, "structure", role, shape=shape, status="born", note=apart.note)
            rows.append((places[mine.name], [probe]))
    moved = {unit.name: other for unit, other in alignment.moved}
    mine, theirs = (_halves(alignment, keras=keras) for keras in (False, True))
    for unit in alignment.ref_only:
        other = moved[unit.name].origin if unit.name in moved else ""
        hidden = not other and alignment.hidden(unit)
        note = _BETWEEN if hidden else mine.get(unit.output, "")
        status = "unverified" if note else "unpaired"
        probe = Probe(unit.name, other, "structure", "layer", shape=_known(unit.shape), status=status, note=note)
        rows.append((places[unit.name], [probe]))
    # What stands in the place of layers of the reference comes behind them.
    paired = {pair.ref.name for pair in alignment.pairs}
    ends, end = {}, float(len(places)) - 1
    for unit in reversed(alignment.ref_units):
        ends[places[unit.name]] = end
        end = places[unit.name] - 1 if unit.name in paired else end
    by_keras = {pair.keras.name: ends[places[pair.ref.name]] for pair in alignment.pairs}
    place = end
    for unit in alignment.keras_units:
        place = by_keras.get(unit.name, place)
        if unit in alignment.keras_only and unit not in moved.values() and not unit.between:
            note = theirs.get(unit.output, "")
            status, shape = "unverified" if note else "unpaired", _known(unit.shape)
            probe = Probe("", unit.origin, "structure", "layer", shape=shape, status=status, note=note)
            rows.append((place + 0.5, [probe]))
    return [probe for _, probes in sorted(rows, key=lambda row: row[0]) for probe in probes]


def _halves(alignment: Alignment, *, keras: bool) -> dict[str, str]:
    """Output of each unit of a side that is a part of a split separable convolution, or all of it → what to note."""
    found: dict[str, str] = {}
    for split in splits(alignment):
        one, halves = split.one, (split.deep, split.wide)
        if split.in_keras is keras:
            found[one.output] = f"is {halves[0].origin} and {halves[1].origin} in one layer"
        else:
            found |= {half.output: f"is a part of {one.origin}, one layer on the other side" for half in halves}
    return found


class _Shapes:
    """Whether the tensors that two units read and make have the same shape."""

    def __init__(self, alignment: Alignment) -> None:
        self.alignment = alignment

    def outputs_agree(self, pair: Pair) -> bool:
        if pair.ref.shape is None or pair.keras.shape is None or pair.ref.core == "Loss":
            return True
        return same_shape(pair.ref.shape, pair.keras.shape)

    def inputs_agree(self, pair: Pair) -> bool:
        ref, keras = self.alignment.ref, self.alignment.keras
        feeds, wired = self.alignment.feeds(pair)
        read = feeds.items() if wired else zip(keras.data(pair.keras.inputs), ref.data(pair.ref.inputs), strict=False)
        for theirs, mine in read:
            a, b = ref.shape_of(mine), keras.shape_of(theirs)
            if a is not None and b is not None and not same_shape(a, b):
                return False
        return True


def _pair_probes(
    alignment: Alignment,
    pair: Pair,
    all_links: tuple[Link, ...],
    values: Mapping[str, Tensor],
    shapes: _Shapes,
    training: bool,
) -> list[Probe]:
    made: list[Probe] = []
    inherited = not shapes.inputs_agree(pair)
    status = "inherited" if inherited else "born"
    _, wired = alignment.feeds(pair)

    def probe(tensor: str, status: str, note: str) -> Probe:
        shape = _known(pair.ref.shape)
        return Probe(pair.ref.name, pair.keras.origin, "structure", tensor, shape=shape, status=status, note=note)

    if not wired:
        made.append(probe("inputs", "born", _wiring(alignment, pair)))
    if not shapes.outputs_agree(pair):
        note = f"{_text(pair.ref.shape)} against {_text(pair.keras.shape)} in Keras"
        made.append(probe("shape", status, note))
    for link in all_links:
        if link.pair is pair and link.problem:
            made.append(probe(link.role, _fit(alignment, link, values, status, training=training), link.problem))
    return made or [probe("shape", "match", "")]


def _moves(alignment: Alignment, link: Link) -> bool:
    """Whether a parameter is trained on either side."""
    mine, theirs = alignment.ref.params[link.ref[0]], alignment.keras.params[link.keras]
    return (mine.trainable and mine.rate_multiplier > 0) or theirs.trainable


def _fit(alignment: Alignment, link: Link, values: Mapping[str, Tensor], status: str, *, training: bool) -> str:
    """The status of a parameter that has no exact counterpart."""
    if link.ref and link.keras:
        return status
    if link.pair.ref.unseen:
        return "unverified"
    neutral = _constant(link)
    silent = not link.ref or all(_silent(values[key], neutral) for key in link.ref)
    fixed = bool(link.ref) and all(alignment.ref.params[key].rate_multiplier == 0 for key in link.ref)
    if silent and (not training or fixed or _cancelled(alignment, link)):
        return "masked"
    return status


def _silent(value: Tensor, neutral: Array | float) -> bool:
    """Whether a parameter has no value but those of the neutral one: a number, or one for each of its elements."""
    rival = np.broadcast_to(np.asarray(neutral, np.float64).ravel(), (math.prod(value.shape),))
    return all(np.allclose(a, b, rtol=1e-6, atol=0) for _, (a, b) in stretches(value, rival))


def _constant(link: Link) -> Array | float:
    """What Keras has in place of a parameter: the constants of a Rescaling, or the value that changes nothing."""
    kind = link.pair.keras.kind
    if isinstance(kind, Rescale):
        return np.asarray(kind.scale if link.role == "gamma" else kind.offset, np.float64)
    return 1.0 if link.role == "gamma" else 0.0


def _cancelled(alignment: Alignment, link: Link) -> bool:
    """A bias right before a batch normalisation in train mode: its gradient is zero, the mean takes it away."""
    if link.role != "bias":
        return False
    readers = alignment.ref.consumers.get(link.pair.ref.output, ())
    return bool(readers) and all(isinstance(layer.kind, BatchNorm) for layer in readers)


def _wiring(alignment: Alignment, pair: Pair) -> str:
    def names(unit: Unit, side: str) -> str:
        network = alignment.ref if side == "ref" else alignment.keras
        return " + ".join(alignment.source(t, side) for t in network.data(unit.inputs))

    return f"reads {names(pair.ref, 'ref')} in the reference, {names(pair.keras, 'keras')} in Keras"


def _known(shape: Shape | None) -> tuple[int, ...]:
    return tuple(int(d) for d in shape or () if d is not None)


def _text(shape: Shape | None) -> str:
    return "×".join("?" if d is None else str(d) for d in shape or ()) or "?"


def compare_weights(
    all_links: tuple[Link, ...], expected: Mapping[str, Tensor], keras_values: Mapping[str, Tensor], *, own: bool
) -> list[Probe]:
    """The `weights` phase: the Keras file's own values against the reference's in the Keras layout (`expected`).

    With `own` a difference is a divergence born here; otherwise the reference's values were loaded over them, and how
    the old ones stood to them is a remark. But where Keras turns a map before it flattens it, and the file's own rows
    are those of a map that nobody turned, the two contradict each other whatever is loaded.
    """
    made: list[Probe] = []
    for link in all_links:
        if not (link.ref and link.keras):
            continue
        if link.keras not in expected:
            status = "inherited" if own else "match"
            made.append(_weight(link, keras_values[link.keras], status, "does not fit: keeps the Keras file's values"))
            continue
        wanted, held = expected[link.keras], keras_values[link.keras]
        found = related(wanted, held)
        word, more, apart = found.word, found.more, found.apart
        text = word if word in ("independent",) else f"{word}: {more}" if word != "equal" else f"equal {more}"
        contradicts = not own and word != "equal" and _is_unturned(link, wanted, held)
        if contradicts:
            text = "has its rows in the order of a map that nothing turns, and Keras turns it"
        status = "born" if contradicts or (own and word != "equal") else "match"
        made.append(
            Probe(
                link.pair.ref.name,
                link.pair.keras.origin,
                "weights",
                link.role,
                shape=held.shape,
                status=status,
                max_abs=apart.max_abs if apart else None,
                rms_rel=apart.relative if apart else None,
                note=text,
            )
        )
    return made


def _is_unturned(link: Link, wanted: Tensor, held: Tensor) -> bool:
    """Whether a kernel is the reference's with its rows in the order of a map that is flattened as it is."""
    if not isinstance(link.to_keras, Turned) or not isinstance(wanted, np.ndarray) or not isinstance(held, np.ndarray):
        return False
    return wanted.shape == held.shape and related(link.to_keras.unturned(wanted), held).word == "equal"


def _weight(link: Link, held: Tensor, status: str, note: str) -> Probe:
    return Probe(
        link.pair.ref.name, link.pair.keras.origin, "weights", link.role, shape=held.shape, status=status, note=note
    )
