"""A run that MatConvNet itself made and `parity_record.m` saved, as a reference.

What was recorded is shown as it is: tensors, derivatives and updates of MatConvNet's own code, layers of the file's
author included. What was not (float64 truths, other inputs, the noise of rounding) is parity's own run of the network
that the file holds, where parity can run it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.matconvnet.recording import MatlabRecording
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.layers import Dropout, Opaque
from parity.runner import Labels, Local, Pass

__all__ = ["RecordedRunner"]

Array = np.ndarray


class RecordedRunner(MatConvNetRunner):
    """A recorded run in the part of a runner (see `parity.runner.Runner`).

    Asked for what was recorded, it gives that; asked for anything else, parity runs the recorded network itself.

    Args:
        recording: as `read_recording` gives it.
    """

    def __init__(self, recording: MatlabRecording) -> None:
        super().__init__(recording.network, recording.recipe)
        self.recording = recording
        self._step = 0
        words = f"MatConvNet's own run was recorded by {recording.engine or 'MATLAB'}, losses as in {self.version}."
        self.remarks.append(words)

    @property
    def engine(self) -> Mapping[str, Any]:
        """What made the recording, and what runs beside it."""
        return {**super().engine, "recorded": self.recording.engine}

    def load(self, values: Mapping[str, Array]) -> None:
        """Put these values in; the recording holds as long as they are its own."""
        super().load(values)
        self._step = self._position()

    def reset(self, slots: Mapping[str, Mapping[str, Array]] | None = None) -> None:
        """Put the trainer at its start."""
        super().reset(slots)
        self._step = self._position()

    def run(
        self,
        inputs: Mapping[str, Array],
        labels: Labels,
        *,
        mode: str = "train",
        backward: bool = True,
        observe: bool = True,
        masks: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        keep: frozenset[str] | None = None,
    ) -> Pass:
        """The recorded pass, where it is what is asked for; else parity's own run of the network.

        Raises:
            CannotCompare: more updates are asked for than were recorded, of layers that parity cannot run.
        """
        foreign = any(isinstance(layer.kind, Opaque) for layer in self.network.layers)
        trained = backward and labels is not None
        if foreign and trained:
            self._check_derived()
        own = precision == 32 and mode == self.recording.mode and self._same(inputs) and self._drawn(mode, masks)
        own &= bool(self.recording.steps) or not trained
        if own and self._step >= 0 and (self._step == 0 or (self._step < len(self.recording.steps) and not observe)):
            return self._recorded(trained)
        return super().run(
            inputs, labels, mode=mode, backward=backward, observe=observe, masks=masks, ties=ties, precision=precision,
            keep=keep,
        )  # fmt: skip

    def isolate(
        self,
        layers: Sequence[str],
        feeds: Mapping[str, Array],
        *,
        labels: Labels = None,
        upstream: Mapping[str, Array] | None = None,
        mode: str = "train",
        masks: Mapping[str, Array] | None = None,
        params: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        wanted: Collection[str] | None = None,
        outputs: bool = True,
    ) -> Local:
        """Parity's own run of these layers; of a layer whose code only MatConvNet had, what was recorded.

        Raises:
            NotImplementedError: such a layer is asked for anything else.
        """
        foreign = [name for name in layers if isinstance(self.network[name].kind, Opaque)]
        if not foreign:
            return super().isolate(
                layers, feeds, labels=labels, upstream=upstream, mode=mode, masks=masks, params=params, ties=ties,
                precision=precision, wanted=wanted, outputs=outputs,
            )  # fmt: skip
        seen = self.recording.seen
        recorded = all(np.array_equal(value, seen.outputs.get(name, ())) for name, value in feeds.items())
        if precision != 32 or not recorded or mode != self.recording.mode:
            raise NotImplementedError(f"{foreign[0]} runs code that parity does not have")
        made = {t for name in layers for t in self.network[name].outputs}
        return Local(outputs={t: seen.outputs[t] for t in made if t in seen.outputs})

    def drawn(self, step: int) -> Mapping[str, Array]:
        """Layer → what dropout kept of it in a step (from 1), 0 or 1; empty where nobody wrote it down."""
        return self.recording.masks[step - 1] if 1 <= step <= len(self.recording.masks) else {}

    def update(self, grads: Mapping[str, Array], statistics: Mapping[str, Mapping[str, Array]]) -> None:
        """The recorded step, where it is given the recorded derivatives; else one step of parity's own trainer."""
        steps = self.recording.after
        if 0 <= self._step < len(steps) and self._derived(grads):
            super().update(grads, statistics)  # its slots go on, should the recording end before the steps do
            super().load(steps[self._step])
            self._step += 1
        else:
            super().update(grads, statistics)
            self._step = -1

    # ------------------------------------------------------------------------------------------------------- inside

    def _derived(self, grads: Mapping[str, Array]) -> bool:
        """Whether these are the derivatives that were recorded in this step."""
        held = self.recording.steps[self._step] if self._step < len(self.recording.steps) else {}
        return grads.keys() == held.keys() and all(
            value is held[key] or np.array_equal(value, held[key]) for key, value in grads.items()
        )

    def _check_derived(self) -> None:
        """Raise CannotCompare where derivatives of layers that cannot be run are asked for, and were not recorded."""
        recording = self.recording
        if not recording.steps:
            raise CannotCompare(
                f"{recording.path}: holds no derivatives, and has layers that cannot be run; record it with "
                f"'derOutputs', or with 'mode', 'test' for --mode eval"
            )
        count = len(recording.after)
        if 0 < count <= self._step:
            raise CannotCompare(
                f"{recording.path}: {count} updates were recorded, of layers that cannot be run for more; "
                f"compare it with --steps {count} at most"
            )

    def _recorded(self, backward: bool) -> Pass:
        seen, step = self.recording.seen, self._step
        made = Pass(
            outputs=dict(seen.outputs), loss=seen.loss, losses=dict(seen.losses), masks=dict(self.drawn(step + 1))
        )
        if step < len(self.recording.steps):
            made.statistics = dict(self.recording.statistics[step])
        if step:
            made.outputs, made.losses, made.loss = {}, {}, self.recording.losses[step]
        if backward:
            made.output_grads = dict(seen.output_grads) if not step else {}
            made.param_grads = dict(self.recording.steps[step]) if step < len(self.recording.steps) else {}
        return made

    def _same(self, inputs: Mapping[str, Array]) -> bool:
        given = self.recording.inputs
        return all(np.array_equal(value, given.get(name, ())) for name, value in inputs.items())

    def _drawn(self, mode: str, masks: Mapping[str, Array] | None) -> bool:
        """Whether the masks that are asked for are the recorded ones."""
        if mode != "train":
            return True
        held = self.drawn(self._step + 1)
        for layer in self.network.layers:
            if isinstance(layer.kind, Dropout) and layer.kind.rate:
                wanted, own = (masks or {}).get(layer.name), held.get(layer.name)
                if wanted is not None and (own is None or not np.array_equal(wanted, own)):
                    return False
        return True

    def _position(self) -> int:
        """How many recorded updates lie behind the present weights; -1 where they are none of the recording's."""
        params = self.network.params
        start = {key: p.value for key, p in params.items() if p.value is not None}
        if all(
            np.array_equal(self._weights[key], np.reshape(value, params[key].shape)) for key, value in start.items()
        ):
            return 0
        for step, values in enumerate(self.recording.after, start=1):
            if all(np.array_equal(self._weights[key], value) for key, value in values.items()):
                return step
        return -1

    def _remark_on(self, opaque: Sequence[str], layers: Sequence[Any]) -> None:
        """Nothing: what parity cannot run is in the recording."""
