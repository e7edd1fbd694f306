"""Is a difference rounding, or was it born in this layer? One layer, given the reference's inputs on both sides.

Three tiers, each only where the one before it leaves a doubt: (1) the two float32 results against what rounding a sum
of that many terms may do; (2) both against the reference in float64 on the same float32 inputs; (3) the referee: the
same Keras layer in float64 against the reference in float64. If these agree, the difference was rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from parity.bench import Trial, Unfit
from parity.differences import differences
from parity.distances import Distance, distance
from parity.layers import LRN, BatchNorm, Dropout
from parity.runner import Local
from parity.tensors import shaped
from parity.tolerance import CLEAN, ROUNDOFF, forward_floor, gradient_floor, parameter_floor, response_floor

__all__ = ["RESTLESS", "RESTLESS_REF", "ROUNDED", "Judge", "Verdict", "examine"]

Array = np.ndarray

ROUNDED = "rounding: equal in float64"
"""The note of a tensor that float32 makes otherwise on each side, and float64 alike."""

RESTLESS_REF = "the reference does not repeat itself: twice on the same inputs it makes different numbers"
RESTLESS = "Keras does not repeat itself: twice on the same inputs it makes different numbers"
"""The note of a tensor of which nothing can be said, since it is another one in each run."""

_SETTLED = 0.5
"""In float64 the two sides must agree to this share of the float32 floor for a difference to count as rounding."""

_WITHOUT_REFEREE = 30.0
"""How many floors are taken for rounding where a layer cannot be run in float64."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one isolated tensor says.

    Attributes:
        phase, tensor: which (words of `report.Probe`).
        status: match, born, or unverified.
        x_floor: distance from the truth in floors.
        floor: the floor per channel, absolute.
        distance: of the two float32 tensors.
        note: how it was settled, if not at first sight.
    """

    phase: str
    tensor: str
    status: str
    x_floor: float | None = None
    floor: Array | float = 0.0
    distance: Distance | None = None
    note: str = ""

    @property
    def floor_rms(self) -> float:
        """The floor of the whole tensor."""
        return float(np.sqrt(np.mean(np.square(self.floor))))


def _where(value: Array) -> tuple[object, ...]:
    """What two arrays have in common that are one and the same memory."""
    return value.__array_interface__["data"][0], value.shape, value.strides, value.dtype


def examine(trial: Trial, *, gradients_only: bool = False, known: Mapping[str, Verdict] | None = None) -> list[Verdict]:
    """Judge every isolated tensor of a pair, or only its gradients; `known`: what is known of some by their names."""
    return Judge(trial, gradients_only=gradients_only, known=known).verdicts()


class Judge:
    """The tiers, for the tensors of one pair; `apart` holds the distances of its float32 results."""

    def __init__(
        self, trial: Trial, *, gradients_only: bool = False, known: Mapping[str, Verdict] | None = None
    ) -> None:
        self.trial, self.gradients_only, self.known = trial, gradients_only, known or {}
        self.apart: dict[str, Distance] = {}
        self._measured: tuple[Any, Distance] | None = None

    def verdicts(self) -> list[Verdict]:
        """Its output (or loss), its input gradients, its parameters' gradients."""
        reason = self._unseen()
        if not reason:
            try:
                return self._drawn_alike(self._each())
            except Unfit as problem:  # the Keras unit, which runs for the first tensor that is not known
                reason = str(problem)
        otherwise = self._draws and any(d.worded for d in differences(self.trial.pair))
        status, note = ("born", "draws by another law") if otherwise else ("unverified", reason)
        if not self.trial.absent and self.trial.misfit:
            status, note = "born", self.trial.misfit
        made = [] if self.gradients_only else [Verdict(*self._made, status, note=note)]
        return made + [Verdict("backward", "dx", "unverified", note=reason)] * self.trial.backward

    def _drawn_alike(self, made: list[Verdict]) -> list[Verdict]:
        """What differs unverified, where two Kerases drop inside a layer, each by its own law, and say the same."""
        chance = self.trial.bench.mode == "train" and self.trial.drops_inside and not differences(self.trial.pair)
        note = "drops inside itself; this Keras shares what it drops otherwise"
        return [replace(v, status="unverified", note=note) if chance and v.status == "born" else v for v in made]

    def _each(self) -> list[Verdict]:
        made: list[Verdict] = []
        if not self.gradients_only:
            made.append(self._loss() if self.trial.is_loss else self._output())
            if made[0].status == "match" and self._drops_otherwise():
                made[0] = replace(made[0], status="born", note="one side drops whole channels, the other single values")
        if self.trial.backward:
            made += self._input_gradients()
            made += self._parameter_gradients()
        return made

    @property
    def _made(self) -> tuple[str, str]:
        """The phase and the name of what the pair makes."""
        return ("loss", "loss") if self.trial.is_loss else ("forward", "output")

    @property
    def _draws(self) -> bool:
        """Whether chance decides what the pair makes here."""
        return self.trial.bench.mode == "train" and self.trial.draws

    def _unseen(self) -> str:
        """Why nothing of the pair can be judged, whatever it makes; empty where it may be."""
        if self.trial.absent:
            return self.trial.absent
        if self._draws:
            return "draws random numbers and leaves no mask that both sides could be given"
        if self._divides_by_zero():
            return "the reference divides by its moments, and their standard deviation is still 0: it is untrained"
        return ""

    def _divides_by_zero(self) -> bool:
        """Whether the reference normalises by a stored deviation of 0, as its initialisation and tidying leave it."""
        kind, stored = self.trial.pair.ref.kind, self.trial.roles.get("deviation")
        if not isinstance(kind, BatchNorm) or stored is None:
            return False
        return (self.trial.bench.mode == "eval" or kind.frozen) and not np.all(stored)

    def _drops_otherwise(self) -> bool:
        """Whether the two dropouts draw by other laws, which tensors made with one mask cannot show."""
        pair = self.trial.pair
        if self.trial.bench.mode != "train" or not isinstance(pair.ref.kind, Dropout):
            return False
        return any(difference.field == "spatial" for difference in differences(pair))

    def _output(self) -> Verdict:
        trial, kind, inputs = self.trial, self.trial.pair.ref.kind, [*self.trial.ref_feeds.values()]
        return self._judge(
            "forward",
            "output",
            lambda made, own: forward_floor(kind, inputs, trial.roles, made, own, size=trial.size),
        )

    def _loss(self) -> Verdict:
        if "loss" in self.known:
            return self.known["loss"]
        values = [self.trial.tensor(self.trial.ref_local, "ref", "loss")]
        values.append(self.trial.tensor(self.trial.keras_local, "keras", "loss"))
        expected, actual = (None if value is None else float(value[0]) for value in values)
        if expected is None or actual is None:
            return Verdict("loss", "loss", "unverified", note="no loss value")
        logits = next(iter(self.trial.ref_feeds.values()))
        size = abs(expected) + float(np.sqrt(np.mean(np.square(logits, dtype=np.float64))))
        return self._judge("loss", "loss", lambda *_: np.asarray([4 * ROUNDOFF * size]))

    def _input_gradients(self) -> list[Verdict]:
        trial = self.trial

        def floor(expected: Array, own: Array | None) -> Array:
            kind, upstream = trial.pair.ref.kind, trial.upstream_ref
            made = gradient_floor(kind, upstream, trial.roles, expected, own, size=trial.size)
            return np.maximum(made, ROUNDOFF / max(1, expected.shape[0])) if trial.is_loss else made

        names = [name for name in trial.named.sources if trial.tensor(trial.ref_local, "ref", name) is not None]
        return [self._judge("backward", name, floor) for name in names]

    def _parameter_gradients(self) -> list[Verdict]:
        made: list[Verdict] = []
        inputs, upstream = list(self.trial.ref_feeds.values()), self.trial.upstream_ref
        for name, link in self.trial.named.gradients.items():
            expected = self.trial.tensor(self.trial.ref_local, "ref", name)
            if expected is not None and self.trial.bench.keras.network.params[link.keras].trainable:
                floor = partial(parameter_floor, link.role, inputs, upstream, size=self.trial.size)
                made.append(self._judge("backward", name, floor))
        return made

    def _judge(self, phase: str, tensor: str, floor_of: Callable[[Array, Array | None], Array]) -> Verdict:
        """One tensor, given what makes its floor of the expected one (and of its root mean squares, where known)."""
        if tensor in self.known:
            return self.known[tensor]
        expected = self.trial.tensor(self.trial.ref_local, "ref", tensor)
        actual = self.trial.tensor(self.trial.keras_local, "keras", tensor)
        if expected is None:
            return Verdict(phase, tensor, "unverified", note="the reference has none")
        if actual is None:
            return Verdict(phase, tensor, "unverified", note="Keras has no such tensor")
        fitted = shaped(actual, expected.shape)
        if fitted is None:
            return Verdict(phase, tensor, "born", note=f"shape {actual.shape[1:]} against {expected.shape[1:]}")
        apart = self._distance(fitted, expected)
        floor = floor_of(expected, apart.own)
        self.apart[tensor] = apart
        if self.trial.bench.limits is not None:
            return self._by_limits(phase, tensor, fitted, expected, apart, floor)
        x_floor = apart.x_floor(floor)
        kind, upstream = self.trial.pair.ref.kind, self.trial.upstream_ref
        if x_floor > CLEAN and phase == "backward" and isinstance(kind, LRN) and upstream is not None:
            (value,) = self.trial.ref_feeds.values()
            floor = np.maximum(floor, response_floor(kind, value, upstream))
            x_floor = apart.x_floor(floor)
        if x_floor <= CLEAN:
            return Verdict(phase, tensor, "match", x_floor, floor, apart)
        return self._doubt(phase, tensor, floor, fitted, expected, apart, x_floor)

    def _distance(self, actual: Array, expected: Array) -> Distance:
        """How far apart two tensors are; the gradients of a sum's terms are one and the same, and measured once."""
        key = _where(actual), _where(expected)
        if self._measured is None or self._measured[0] != key:
            self._measured = key, self._apart(actual, expected)
        return self._measured[1]

    def _apart(self, actual: Array, expected: Array) -> Distance:
        return distance(actual, expected)

    @cached_property
    def _ref_alone(self) -> Local:
        """The reference's unit alone, after `Trial.ref_again`."""
        return self.trial.run_ref()

    def _as_alone(self, phase: str, tensor: str, floor: Array, actual: Array, once: Array) -> Verdict | None:
        """A match where the reference's unit alone makes what Keras' does, each time.

        In its whole pass it may not: there a gradient comes through the type of the layer before it, bfloat16 say.
        """
        twice = self.trial.tensor(self._ref_alone, "ref", tensor)
        if twice is None or distance(twice, once).x_floor(floor) > CLEAN:
            return None
        apart = self.apart[tensor] = distance(actual, once)
        x_floor = apart.x_floor(floor)
        return Verdict(phase, tensor, "match", x_floor, floor, apart) if x_floor <= CLEAN else None

    def _tied(
        self, phase: str, tensor: str, floor: Array, actual: Array, expected: Array, apart: Distance
    ) -> Verdict | None:
        """A match where the gradient only goes to another of several equal maxima, in the map or around it.

        Or where it is another one only at the kink of a rectifier.
        """
        for where, truth in (
            ("an equal maximum", "truth_by_rows"),
            ("a zero around the map", "truth_over_zeros"),
            ("all equal maxima", "truth_by_shares"),
        ):
            local: Local | None = getattr(self.trial, truth)  # each runs the reference's layer once more
            other = None if local is None else self.trial.tensor(local, "ref", tensor)
            if other is None or distance(actual, other).x_floor(floor) > CLEAN:
                continue
            count = int(np.count_nonzero(expected != other))
            return Verdict(phase, tensor, "match", 0.0, floor, apart, f"ties ({count} gradients go to {where})")
        chosen, count = self.trial.past_kinks(actual, expected)
        if count and distance(chosen, expected).x_floor(floor) <= CLEAN:
            return Verdict(phase, tensor, "match", 0.0, floor, apart, f"ties ({count} values lie at the kink)")
        return None

    def _by_limits(
        self, phase: str, tensor: str, actual: Array, expected: Array, apart: Distance, floor: Array
    ) -> Verdict:
        assert self.trial.bench.limits is not None
        rtol, atol = self.trial.bench.limits
        with np.errstate(all="ignore"):
            ok = np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
        return Verdict(
            phase, tensor, "match" if ok else "born", apart.x_floor(floor), floor, apart, "rtol and atol given"
        )

    def _doubt(
        self,
        phase: str,
        tensor: str,
        floor: Array,
        actual: Array,
        expected: Array,
        apart: Distance,
        x_floor: float,
    ) -> Verdict:
        """Tiers two and three: float64 says what is rounding."""
        if tensor in self.trial.named.sources:
            tied = self._tied(phase, tensor, floor, actual, expected, apart)
            if tied is not None:
                return tied
        truth = self.trial.truth(tensor)
        own = None if truth is None else distance(expected, truth)
        raised = np.maximum(floor, own.channel_rms) if own is not None and own.finite else floor
        near = None if truth is None else distance(actual, truth).x_floor(raised)
        if near is not None and near <= CLEAN and own is not None and own.x_floor(floor) <= CLEAN:
            # Both came out where float64 does: neither need show that it repeats itself.
            return Verdict(phase, tensor, "match", near, raised, apart)
        once = self.trial.tensor(self.trial.ref_again, "ref", tensor) if self.trial.ref_again else None
        ref_rests = once is None or distance(once, expected).x_floor(floor) <= CLEAN
        if near is not None and near <= CLEAN and ref_rests:
            return Verdict(phase, tensor, "match", near, raised, apart)
        again = self.trial.tensor(self.trial.keras_again, "keras", tensor)
        repeated = None if again is None else shaped(again, expected.shape)
        if repeated is not None and distance(repeated, actual).x_floor(floor) > CLEAN:
            return Verdict(phase, tensor, "unverified", x_floor, floor, apart, RESTLESS)
        if not ref_rests:
            alone = None if once is None else self._as_alone(phase, tensor, floor, actual, once)
            return alone or Verdict(phase, tensor, "unverified", x_floor, floor, apart, RESTLESS_REF)
        if truth is not None and near is not None:
            floor, x_floor = raised, near
            if self.trial.low_precision:
                note = f"Keras computes in {self.trial.low_precision}"
                return Verdict(phase, tensor, "born", x_floor, floor, apart, note)
            judged = self.trial.tensor(self.trial.referee, "keras", tensor) if self.trial.referee else None
            if judged is not None:
                settled = shaped(judged, truth.shape)
                if settled is not None and distance(settled, truth).x_floor(floor) <= _SETTLED:
                    return Verdict(phase, tensor, "match", x_floor, floor, apart, ROUNDED)
                return Verdict(phase, tensor, "born", x_floor, floor, apart)
        if x_floor <= _WITHOUT_REFEREE:
            return Verdict(phase, tensor, "match", x_floor, floor, apart, "by the floor alone: no float64 run")
        return Verdict(phase, tensor, "born", x_floor, floor, apart)
