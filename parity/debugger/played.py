"""Two recorded runs to step through: what `training` and `scene` are for sides that run, without anything that does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.comparison import Slots
from parity.debugger.nodes import Blocked
from parity.errors import BadUsage, CannotCompare
from parity.network import Network
from parity.propagation import seen_tensor
from parity.report import Finding, Probe
from parity.runner import Pass
from parity.setup import Setup
from parity.tensors import shaped
from parity.traces.between import traces_of
from parity.traces.moves import update_probes
from parity.traces.reader import Trace
from parity.traces.recorded import begun_traces
from parity.traces.two import Two, findings_of
from parity.updates import Move

__all__ = ["Played", "RecordedPair"]

Array = np.ndarray


class RecordedPair:
    """Both sides as traces; a side that is none was run and recorded, in a folder that lives as long as this.

    Args:
        setup: what is compared.
        mine, theirs: the reference's trace, and the Keras side's.
        folder: of what was recorded here, or None.
    """

    def __init__(self, setup: Setup, mine: Trace, theirs: Trace, folder: Any = None) -> None:
        self.setup, self.ref, self.keras, self._folder = setup, mine, theirs, folder

    @classmethod
    def of(cls, setup: Setup) -> RecordedPair | None:
        """The pair of a comparison; None where its sides can be run.

        Raises:
            ParityError: a file cannot be read or run.
        """
        folder = tempfile.TemporaryDirectory(prefix="parity-")
        found = traces_of(setup, Path(folder.name))
        if found is None:
            folder.cleanup()
            return None
        return cls(setup, found[0], found[1], folder)

    def begun(self) -> tuple[Comparison, Played]:
        """The comparison up to the weights, and its steps."""
        setup = self.setup
        run = begun_traces(self.ref, self.keras, mode=setup.mode, mapping=setup.mapping, batch=setup.given)
        return run, Played(run, self.ref, self.keras, setup.limits)

    @property
    def steps(self) -> int:
        """The updates that both recorded."""
        return min(self.ref.steps, self.keras.steps)


class _PlayedLane:
    """One side's tensors, read from its trace when they are asked for."""

    def __init__(self, trace: Trace, step: int) -> None:
        self.trace, self.step = trace, step
        self.network: Network = trace.network
        self.runs = self.held = 0
        self.weights: Mapping[str, Array] = trace.weights(step - 1)

    def value(self, tensor: str) -> Array:
        """A tensor of the forward pass; raises Blocked where the trace does not hold all of it."""
        for group in ("inputs", f"step{self.step}/outputs"):
            held = self.trace.lazy(group)
            if tensor in held:
                return held[tensor]
        kept = "" if self.trace.tensors == "all" else f" (it keeps {self.trace.tensors} of tensors)"
        raise Blocked(f"{self.trace.path} does not hold {tensor} of step {self.step}{kept}")

    def gradient(self, tensor: str) -> Array | None:
        """The derivative of the objective with respect to a tensor."""
        return self.trace.lazy(f"step{self.step}/output_grads").get(tensor)


class _PlayedScene:
    """Both sides at one recorded step."""

    def __init__(self, played: Played, step: int) -> None:
        self.run, self.step = played.run, step
        self.ref, self.keras = _PlayedLane(played.ref, step), _PlayedLane(played.keras, step)
        self._two = played.two

    def judge(self, pair: Pair, phase: str, before: Any = ()) -> list[Probe]:
        """The probes of a pair in `forward`, `loss` or `backward`."""
        return self._two.backward(pair) if phase == "backward" else self._two.forward(pair)

    def tensor(self, pair: Pair, name: str, side: str) -> Array | None:
        """One tensor of a pair by its name in reports; the Keras one in the reference's shape if it fits."""
        lane, unit = (self.ref, pair.ref) if side == "ref" else (self.keras, pair.keras)
        if name == "output":
            lane.value(unit.output)  # says why where it cannot be
        named = self.run.named[pair.ref.name]
        value = seen_tensor(named, name, lane.trace.seen(self.step), side)
        if value is None or side == "ref":
            return value
        expected = seen_tensor(named, name, self.ref.trace.seen(self.step), "ref")
        same = None if expected is None else shaped(value, expected.shape)
        return value if same is None else same


class Played:
    """The recorded steps of two traces; what `Training` is for sides that run.

    Args:
        run: their comparison, begun.
        ref, keras: the traces.
        limits: (rtol, atol) in place of recorded floors, or None.
    """

    def __init__(self, run: Comparison, ref: Trace, keras: Trace, limits: tuple[float, float] | None) -> None:
        self.run, self.ref, self.keras = run, ref, keras
        self.two = Two(run, ref, keras, limits)
        self.reached = 1
        count = min(ref.steps, keras.steps)
        run.course.passes = [Pass() for _ in range(count)]  # how many steps there were, for what is said of schedules
        self._scene = _PlayedScene(self, 1)

    def scene(self, step: int) -> Any:
        """Both sides at a step; the tensors of the first alone are recorded."""
        return self._scene if step == 1 else _PlayedScene(self, step)

    def update(self, step: int) -> list[Move]:
        """How an update moved each parameter on both sides."""
        if len(self.run.moves) == 0:
            self.run.moves = self.two.moves(min(self.ref.steps, self.keras.steps))
        return [move for move in self.run.moves if move.step == step]

    def probes(self, step: int, layer: str, before: Any = ()) -> list[Probe]:
        """The probes of one layer's parameters in an update."""
        return [probe for probe in update_probes(self.update(step)) if probe.layer == layer]

    def weights(self, side: str, step: int) -> Mapping[str, Array]:
        """A side's parameters after so many updates."""
        return (self.ref if side == "ref" else self.keras).weights(step)

    def slots(self, step: int) -> tuple[Slots, Slots]:
        """Nothing: traces hold no slots."""
        return {}, {}

    def findings(self, phase: str) -> tuple[Finding, ...]:
        """What differs between the two networks and recipes."""
        return findings_of(self.run)

    def refuse(self, what: str) -> None:
        """Raises BadUsage: nothing of a recording can be run otherwise."""
        raise BadUsage(f"{what}: both sides are played back from recordings, and nothing of them can be run again")

    def idle(self) -> None:
        """Recordings lend nothing."""

    def changed(self, step: int) -> None:
        """Nothing can be."""
        raise CannotCompare("a recorded run cannot be changed")
