"""The training steps of both sides, one after the other, each only when somebody comes to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.case import Comparison
from parity.comparison import Slots, unmoved, update_probe
from parity.debugger.scene import How, Scene
from parity.debugger.stops import Faults
from parity.diagnose import diagnose
from parity.rehearsal import rehearse
from parity.report import Finding, Probe
from parity.transfer import transferred
from parity.updates import Move, coarseness, isolated_step, step_moves

__all__ = ["Training"]

Array = np.ndarray


@dataclass(eq=False)
class _Optimizers:
    """The reference's optimizer, Keras' own, and Keras' on the reference's gradients, after so many steps."""

    ref: Any
    free: Any
    alone: Any
    steps: int = 0


@dataclass(frozen=True, eq=False)
class _Made:
    """Both sides' parameters after an update, those that Keras reached from the reference's, and both sides' slots."""

    ref: dict[str, Array]
    keras: dict[str, Array]
    reached: dict[str, Array]
    slots: tuple[Slots, Slots]


class Training:
    """Both sides' training steps on one batch.

    Args:
        run: the comparison, begun: weights are loaded, nothing has run.
        slots: of the Keras optimizer at the start, by Keras id.
        how: both sides are run.
    """

    def __init__(self, run: Comparison, slots: Slots, how: How) -> None:
        self.run, self._slots, self._how = run, slots, how
        self._origin = run.ref.params(), run.keras.params()
        run.course.weights.append(self._origin[0])
        run.free.weights.append(self._origin[1])
        self._scenes: list[Scene] = []
        self._moves: dict[int, list[Move]] = {}
        self._put: dict[tuple[str, int], dict[str, Array]] = {}
        self._slots_after: dict[int, tuple[Slots, Slots]] = {}
        self._optimizers: _Optimizers | None = None
        self._differ: bool | None = None
        self.scene(1)

    @property
    def start(self) -> dict[str, Array]:
        """The reference's parameters before the first step."""
        return self._origin[0]

    @property
    def reached(self) -> int:
        """The last step that was come to."""
        return len(self._scenes)

    def scene(self, step: int) -> Scene:
        """Both sides at a step; the updates before it are made if nobody has made them.

        Raises:
            Blocked: a gradient that an earlier update needs cannot be computed.
            CannotCompare: a side has no update rule that can be run.
        """
        while len(self._scenes) < step:
            done = len(self._scenes)
            if done:
                self.update(done)
            mine, theirs = self.run.course.weights[done], self.run.free.weights[done]
            scene = Scene(self.run, done + 1, mine, theirs, self._how)
            self.release()
            self._scenes.append(scene)
            if done == 0:
                self.run.course.passes.append(scene.seen_ref)
                self.run.free.passes.append(scene.seen_keras)
        wanted = self._scenes[step - 1]
        if any(scene.loaded for scene in self._scenes if scene is not wanted):
            for scene in self._scenes:
                scene.loaded = False
        return wanted

    def release(self) -> None:
        """Let go of every tensor of every step; what is looked at later is computed again."""
        for scene in self._scenes:
            scene.release()

    def update(self, step: int) -> list[Move]:
        """The update of a step: both sides' own, and the Keras optimizer's on the reference's weights and gradients."""
        if step in self._moves:
            return self._moves[step]
        run, scene = self.run, self.scene(step)
        self._how.borrow()
        scene.finish()
        course, free = run.course, run.free
        for held, seen in ((course, scene.seen_ref), (free, scene.seen_keras)):
            del held.passes[step - 1 :]
            held.passes.append(seen)
            del held.weights[step:]
        if self._optimizers is None or self._optimizers.steps != step - 1:
            self._optimizers = self._started()
            for at in range(1, step):
                self._advance(self._optimizers, at)
        optimizers, self._optimizers = self._optimizers, None  # what is half done nobody goes on from
        made = self._advance(optimizers, step)
        self._optimizers = optimizers
        course.weights.append({**made.ref, **self._put.get(("ref", step), {})})
        free.weights.append({**made.keras, **self._put.get(("keras", step), {})})
        self._slots_after[step] = made.slots
        coarse = coarseness(run.keras.recipe)
        self._moves[step] = step_moves(run.links, course, free, made.reached, step, unmoved(run), coarse)
        run.moves = [move for at in sorted(self._moves) for move in self._moves[at]]
        for other in self._scenes:
            other.loaded = False
        return self._moves[step]

    def _started(self) -> _Optimizers:
        """All three at their start."""
        run = self.run
        run.ref.reset(run.ref.recipe.slots or None)
        run.keras.reset(self._slots)
        free = run.keras.halted()
        run.keras.reset(self._slots)
        return _Optimizers(run.ref.halted(), free, run.keras.halted())

    def _advance(self, optimizers: _Optimizers, step: int) -> _Made:
        """One update of each, from the weights and gradients of that step."""
        run = self.run
        ends: list[dict[str, Array]] = []
        slots: list[Slots] = []
        for name, runner, held in (("ref", run.ref, run.course), ("free", run.keras, run.free)):
            runner.resume(getattr(optimizers, name))
            runner.load(held.weights[step - 1])
            seen = held.passes[step - 1]
            runner.update(seen.param_grads, seen.statistics)
            ends.append(runner.params())
            slots.append(runner.slots())
            setattr(optimizers, name, runner.halted())
        run.keras.resume(optimizers.alone)
        reached = isolated_step(run.alignment, run.links, run.keras, run.course, step)
        optimizers.alone = run.keras.halted()
        optimizers.steps = step
        return _Made(ends[0], ends[1], reached, (slots[0], slots[1]))

    def weights(self, side: str, step: int) -> Mapping[str, Array]:
        """A side's parameters after so many updates."""
        if step:
            self.update(step)
        return (self.run.course if side == "ref" else self.run.free).weights[step]

    def findings(self, phase: str) -> tuple[Finding, ...]:
        """What the rules say of what was seen so far, up to a phase."""
        first = self.scene(1)
        first.ready()
        if phase not in ("input", "structure", "weights"):  # what runs layers alone is at hand from there on
            first.run.bench = first.bench(backward=phase in ("backward", "update"))
        if phase == "update" and 1 in self._moves:
            self._rehearse()
        return diagnose(first.run)

    def refuse(self, what: str) -> None:
        """Nothing: every experiment can be made."""

    def slots(self, step: int) -> tuple[Slots, Slots]:
        """What both optimizers hold after a step's update, by the ids of each side."""
        self.update(step)
        return self._slots_after[step]

    def probes(self, step: int, layer: str, before: Faults) -> list[Probe]:
        """The probes of one layer's parameters in an update."""
        moves = self.update(step)
        apart = any(m.status == "born" and m.step <= step for m in self.run.moves)
        unseen = not apart and self._rehearse()
        fault = bool(before) or apart
        here = [move for move in moves if move.link.pair.ref.name == layer]
        return [update_probe(move, before=fault, unseen=unseen) for move in here]

    def _rehearse(self) -> bool:
        """Whether both optimizers alone, which take their steps once, differ where this batch may not show it."""
        if self._differ is None:
            run = self.run
            run.rehearsal = rehearse(run.ref, run.keras, run.course.passes[0])
            self._differ = run.rehearsal is not None and bool(run.rehearsal.differ(run.ref.recipe, run.keras.recipe))
        return self._differ

    # ---- experiments

    def idle(self) -> None:
        """Somebody else has the models: their weights are to be loaded again before anything runs."""
        for scene in self._scenes:
            scene.loaded = False

    def changed(self, step: int) -> None:
        """Something of a step was replaced: its update and everything behind it is made anew."""
        for at in [at for at in self._moves if at >= step]:
            del self._moves[at]
            self._optimizers = None
        for scene in self._scenes[step:]:
            scene.loaded = False
        del self._scenes[step:]
        for held in (self.run.course, self.run.free):
            del held.passes[max(step - 1, 1) :]
            del held.weights[step:]
        for side, at in [key for key in self._put if key[1] > step]:
            del self._put[side, at]
        self.run.moves = [move for at in sorted(self._moves) for move in self._moves[at]]
        self._scenes[step - 1].changed()

    def put(self, side: str, step: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """Give a side these parameters after a step's update; gives what was put there before, for `unput`."""
        before = dict(self._put.get((side, step), {}))
        self._put[side, step] = {**before, **values}
        self.changed(step)
        return before

    def unput(self, side: str, step: int, before: Mapping[str, Array]) -> None:
        """Take back what was put in after a step."""
        self._put[side, step] = dict(before)
        self.changed(step)

    def set_weight(self, side: str, step: int, key: str, value: Array) -> Array:
        """Give a side another parameter at a step's start; gives the one it had."""
        held = self.run.course if side == "ref" else self.run.free
        before = held.weights[step - 1][key]
        held.weights[step - 1] = {**held.weights[step - 1], key: value}
        scene = self._scenes[step - 1]
        (scene.ref if side == "ref" else scene.keras).set_weight(key, value)
        self.changed(step)
        return before

    def goal(self, step: int) -> dict[str, Array]:
        """The reference's parameters after a step's update, in the Keras layout."""
        self.update(step)
        return transferred(self.run.links, self.run.course.weights[step])
