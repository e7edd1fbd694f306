"""What can be looked at: both sides' tensors, where and how they differ, and the terms that made one element."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parity.align import Pair
from parity.debugger.measures import Extreme, Histogram, by_channel, by_place, extremes, histogram
from parity.debugger.nodes import Blocked
from parity.debugger.terms import Terms, terms_of
from parity.distances import distance, rms
from parity.errors import BadUsage, ParityError
from parity.report import Probe, RecipeRow
from parity.summary import recipe_rows
from parity.tensors import shaped
from parity.transfer import Link
from parity.wording import kind_words

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper

__all__ = ["LayerLine", "Look", "ParameterLine"]

Array = np.ndarray

SIDES = ("ref", "keras", "difference")


@dataclass(frozen=True)
class LayerLine:
    """One line of the list of layers: names, what they are, and phase → status of the stops judged so far."""

    layer: str
    keras_layer: str
    kind: str
    keras_kind: str
    shape: tuple[int | None, ...]
    group: tuple[str, ...]
    statuses: Mapping[str, str]


@dataclass(frozen=True)
class ParameterLine:
    """A parameter or a slot: name, shape in the Keras layout, and root mean squares; None where a side has none."""

    name: str
    shape: tuple[int, ...]
    ref: float | None
    keras: float | None
    difference: float | None


class Look:
    """What there is at one stop; tensors that were asked for are held as long as this is.

    Args:
        stepper: the run.
        index: of the stop.
    """

    def __init__(self, stepper: Stepper, index: int) -> None:
        self._stepper, self.stop = stepper, stepper.stops[index]
        self._pair = self.stop.pair
        self._held: dict[tuple[str, str], Array] = {}

    # ---- tensors

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What `tensor` takes: the compared tensors first, then inputs and parameters."""
        pair = self._pair
        if pair is None:
            return ("x",) if self.stop.phase == "input" else ()
        named = self._stepper.comparison.named[pair.ref.name]
        made = [p.tensor for p in (self._state_probes() or ()) if not self.stop.adds]
        inputs = [f"input{n if n > 1 else ''}" for n in range(1, len(self._inputs("ref")) + 1)]
        output = [] if self.stop.phase == "loss" and not self.stop.adds else ["output"]
        grads = [*named.sources, *named.gradients] if self.stop.phase == "backward" else []
        roles = [self._role_name(link) for link in self._links()]
        slots = [f"{self._role_name(link)}.{slot}" for link in self._links() for slot in self._slots_of(link)]
        return tuple(dict.fromkeys([*made, *output, *inputs, *grads, *roles, *slots]))

    def tensor(self, name: str = "", side: str = "ref") -> Array:
        """A tensor of the stop, n h w c; the Keras one in the reference's shape and layout if it fits.

        Args:
            name: one of `names`; by default the worst of the compared tensors.
            side: `"ref"`, `"keras"`, or `"difference"` (Keras less the reference).

        Raises:
            BadUsage: there is no such tensor, it cannot be computed, or the sides' shapes differ.
        """
        name = name or self.default
        if side not in SIDES:
            raise BadUsage(f"a tensor is of ref or keras, or their difference, not of {side!r}")
        if not self.names:
            raise BadUsage(f"nothing is computed at {self.stop.words}; go on to a layer")
        if name not in self.names:
            raise BadUsage(f"there is no tensor {name!r} at {self.stop.words}; there are {', '.join(self.names)}")
        if side != "difference":
            value = self._held[name, side] if (name, side) in self._held else self._value(name, side)
            if value is None:
                raise BadUsage(f"{'the reference' if side == 'ref' else 'Keras'} has no {name} at {self.stop.words}")
            self._held[name, side] = value
            return value
        expected, actual = self._both(name)
        return actual.astype(np.float64) - expected

    def hold(self, name: str) -> None:
        """Compute a tensor on both sides, as far as they have it, so that later looks at it run nothing."""
        for side in ("ref", "keras"):
            with contextlib.suppress(BadUsage):
                self.tensor(name, side)

    @property
    def default(self) -> str:
        """The compared tensor that is furthest off."""
        probes = [p for p in (self._state_probes() or ()) if p.tensor in self.names]
        if not probes:
            return next(iter(self.names), "")
        grave = ("match", "masked", "inherited", "unverified", "unpaired", "born")
        return max(probes, key=lambda p: (grave.index(p.status), p.isolated_x_floor or 0.0)).tensor

    def _state_probes(self) -> tuple[Probe, ...] | None:
        state = self._stepper.state(self.stop.index)
        return None if state is None else state.probes

    def _inputs(self, side: str) -> list[str]:
        assert self._pair is not None
        named = self._stepper.comparison.named[self._pair.ref.name]
        if side == "ref":
            return self._stepper.comparison.ref.network.data(self._pair.ref.inputs)
        turned = {source: tensor for tensor, source in reversed(list(named.wiring.items()))}
        return [turned.get(tensor, "") for tensor in self._inputs("ref")]

    def _links(self) -> list[Link]:
        assert self._pair is not None
        return self._stepper.comparison.links_of(self._pair)

    def _role_name(self, link: Link) -> str:
        links = [other for other in self._links() if other.role == link.role]
        return link.role if links[0] is link else f"{link.role}{links.index(link) + 1}"

    def _value(self, name: str, side: str) -> Array | None:
        stepper, pair = self._stepper, self._pair
        if pair is None:
            given = stepper.comparison.data.ref if side == "ref" else stepper.comparison.data.keras
            return next(iter(given.values()), None)
        scene = stepper.scene(self.stop.index)
        lane = scene.ref if side == "ref" else scene.keras
        try:
            if name.startswith("input"):
                place = int(name[5:] or 1) - 1
                tensor = self._inputs(side)[place]
                value = lane.value(tensor) if tensor else None
                return value if side == "ref" or value is None else self._like_ref(value, name)
            role, _, slot = name.partition(".")
            link = next((link for link in self._links() if self._role_name(link) == role), None)
            if link is not None and name not in ("output", "loss"):
                return self._slot(link, slot, side) if slot else self._parameter(link, side)
            return scene.tensor(pair, name, side)
        except Blocked as problem:
            raise BadUsage(f"{name} of {self.stop.layer}: {problem}") from None

    def _like_ref(self, value: Array, name: str) -> Array:
        expected = self._value(name, "ref")
        same = None if expected is None else shaped(value, expected.shape)
        return value if same is None else same

    def _parameter(self, link: Link, side: str) -> Array | None:
        """A parameter in the Keras layout, before the step (in the update phase: after it)."""
        stepper, step = self._stepper, self.stop.step
        if self.stop.phase == "update":
            values = stepper.training.weights(side, step)
        else:
            scene = stepper.scene(self.stop.index)
            values = (scene.ref if side == "ref" else scene.keras).weights
        if side == "keras":
            return values.get(link.keras)
        known = link.to_keras is not None and all(key in values for key in link.ref)
        return link.to_keras(values) if known and link.to_keras is not None else None

    def _slots_of(self, link: Link) -> list[str]:
        """What either optimizer holds of a parameter after this update, but for counts of steps."""
        if self.stop.phase != "update" or self._state_probes() is None:
            return []
        try:
            mine, theirs = self._stepper.training.slots(self.stop.step)
        except (Blocked, ParityError):  # the update cannot be made, and its probes say why
            return []
        found = dict.fromkeys(slot for key in link.ref for slot, value in mine.get(key, {}).items() if np.ndim(value))
        return [*found, *(slot for slot in theirs.get(link.keras, {}) if slot not in found)]

    def _slot(self, link: Link, slot: str, side: str) -> Array | None:
        """What a side's own optimizer holds after this update, in the Keras layout; a momentum without the rate."""
        mine, theirs = self._stepper.training.slots(self.stop.step)
        if side == "keras":
            return theirs.get(link.keras, {}).get(slot)
        given = {key: mine[key][slot] for key in link.ref if slot in mine.get(key, {})}
        known = link.to_keras is not None and len(given) == len(link.ref) > 0
        return np.asarray(link.to_keras(given)) if known and link.to_keras is not None else None

    def parameters(self) -> list[ParameterLine]:
        """The layer's parameters and, in an update, its slots: shapes, sizes, and how far the sides are apart."""
        found: list[ParameterLine] = []
        for name in self.names:
            if self._pair is None or name.partition(".")[0] not in {self._role_name(link) for link in self._links()}:
                continue
            sides: dict[str, Array | None] = {}
            for side in ("ref", "keras"):
                try:
                    sides[side] = self.tensor(name, side)
                except BadUsage:
                    sides[side] = None
            expected, actual = sides["ref"], sides["keras"]
            gap = None
            if expected is not None and actual is not None and expected.shape == actual.shape:
                gap = distance(actual, expected).rms
            some = expected if expected is not None else actual
            sizes = [None if value is None else rms(value) for value in (expected, actual)]
            found.append(ParameterLine(name, () if some is None else some.shape, sizes[0], sizes[1], gap))
        return found

    # ---- how they differ

    def _both(self, name: str) -> tuple[Array, Array]:
        """Both sides' tensors; raises BadUsage where their shapes differ."""
        expected, actual = self.tensor(name, "ref"), self.tensor(name, "keras")
        if expected.shape != actual.shape:
            name = name or self.default
            raise BadUsage(f"{name} is {_extent(expected)} in the reference and {_extent(actual)} in Keras")
        return expected, actual

    def worst(self, name: str = "", count: int = 10) -> list[Extreme]:
        """The elements at which the sides are furthest apart, the worst first."""
        return extremes(*self._both(name), count)

    def histogram(self, name: str = "", bins: int = 40) -> Histogram:
        """Both sides' values in common bins; what is not finite is left out."""
        return histogram(self.tensor(name, "ref"), self.tensor(name, "keras"), bins)

    def channels(self, name: str = "") -> Array:
        """Root mean square of the difference in each channel (the last axis)."""
        return by_channel(*self._both(name))

    def spatial(self, name: str = "") -> Array:
        """Root mean square of the difference at each place, over images and channels: (h, w), or () without places.

        Of a kernel h w i o likewise, over its channels.
        """
        return by_place(*self._both(name), kernel=self._is_kernel(name))

    def _is_kernel(self, name: str) -> bool:
        """Whether a tensor is laid out as a parameter: one of them, its gradient, or what an optimizer holds of it."""
        if self._pair is None:
            return False
        role = (name or self.default).partition(".")[0]
        return any(role in (known, f"d{known}") for known in map(self._role_name, self._links()))

    def slice(self, name: str = "", side: str = "difference", index: Sequence[int | None] | None = None) -> Array:
        """A two-dimensional cut of a tensor.

        Args:
            name: one of `names`.
            side: as in `tensor`.
            index: one entry per axis; the two that are None make the cut. By default height and width of the worst
                element's image and channel (for a kernel: of its channels), or the two axes of a matrix.

        Raises:
            BadUsage: the index does not fit.
        """
        if side == "difference":
            self._both(name)
            index = self.cut(name) if index is None and self.tensor(name).ndim > 1 else index
            expected, actual = (self.slice(name, one, index) for one in ("ref", "keras"))
            return actual.astype(np.float64) - expected
        value = self.tensor(name, side)
        if value.ndim < 2:
            return value.reshape(1, -1)
        if index is None:
            index = self.cut(name)
        if len(index) != value.ndim or sum(i is None for i in index) != 2:
            raise BadUsage(f"a cut of {_extent(value)} takes {value.ndim} entries, two of them free (None or *)")
        if any(i is not None and not -n <= i < n for i, n in zip(index, value.shape, strict=True)):
            at = ",".join("*" if i is None else str(i) for i in index)
            raise BadUsage(f"{at} lies outside of {_extent(value)}")
        return value[tuple(slice(None) if i is None else i for i in index)]

    def cut(self, name: str = "") -> tuple[int | None, ...]:
        """The index of the cut that `slice` shows by default: through the worst element."""
        value = self.tensor(name, "ref")
        try:
            at = self.worst(name, 1)[0].index
        except (BadUsage, IndexError):
            at = (0,) * value.ndim
        if value.ndim <= 2:
            return (None,) * value.ndim
        free = (0, 1) if self._is_kernel(name) else (value.ndim - 3, value.ndim - 2)
        if all(value.shape[axis] == 1 for axis in free):  # no map: the two largest axes
            free = tuple(sorted(range(value.ndim), key=lambda axis: -value.shape[axis])[:2])
        return tuple(None if axis in free else at[axis] for axis in range(value.ndim))

    def terms(self, index: Sequence[int], count: int = 10) -> Terms:
        """The receptive field of one element of the output, and the products that made it on both sides.

        Args:
            index: of the output, n h w c.
            count: of the terms that differ most.

        Raises:
            BadUsage: nothing runs here, or the index lies outside of the output.
        """
        if self._pair is None:
            raise BadUsage(f"there is no output at {self.stop.words}")
        return terms_of(self._stepper, self.stop, tuple(index), count)

    # ---- lists

    def layers(self) -> list[LayerLine]:
        """Every pair with the statuses of its stops, in the reference's order."""
        stepper = self._stepper
        statuses: dict[Pair | None, dict[str, str]] = {}
        for stop in stepper.stops:
            state = stepper.state(stop.index)
            if stop.pair is not None and state is not None:
                key = stop.phase if stop.step == 1 else f"{stop.phase} {stop.step}"
                statuses.setdefault(stop.pair, {})[key] = state.status
        return [
            LayerLine(
                pair.ref.name,
                pair.keras.origin,
                kind_words(pair.ref.kind),
                kind_words(pair.keras.kind),
                pair.ref.shape or (),
                tuple(pair.keras.origin.split("/")[:-1]),
                statuses.get(pair, {}),
            )
            for pair in stepper.comparison.alignment.pairs
        ]

    def recipe(self) -> tuple[RecipeRow, ...]:
        """How both sides are trained, side by side."""
        return recipe_rows(self._stepper.comparison)

    # ---- files

    def export(self, path: Path, name: str = "", side: str = "ref") -> Path:
        """Write a tensor to a `.npy` or `.mat` file (`export` of the commands), whole or not at all.

        A `.mat` holds both sides and their difference, in MATLAB's axes h w c n where there are four.

        Raises:
            BadUsage: another extension, or the file cannot be written.
        """
        from parity.reports.output import check_target, replacing

        name = name or self.default
        if path.suffix not in (".npy", ".mat"):
            raise BadUsage(f"export: {path} is neither .npy nor .mat")
        check_target(path, "export")
        if path.suffix == ".npy":
            value = self.tensor(name, side)
            with replacing(path, "export") as target:
                np.save(target, value)
            return path
        import scipy.io

        arrays = {word: self.tensor(name, word) for word in ("ref", "keras")}
        if arrays["ref"].shape == arrays["keras"].shape:
            arrays["difference"] = self.tensor(name, "difference")
        turned = self._is_kernel(name)
        held = {k: np.moveaxis(v, 0, -1) if v.ndim == 4 and not turned else v for k, v in arrays.items()}
        about = {"layer": self.stop.layer, "phase": self.stop.phase, "step": self.stop.step, "tensor": name}
        with replacing(path, "export") as target:
            scipy.io.savemat(target, {**held, **about})
        return path


def _extent(value: Array) -> str:
    return "×".join(map(str, value.shape)) or "a scalar"
