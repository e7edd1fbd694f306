"""How a network is trained: loss, update rule, schedule, weight decay, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.layers.loss import Loss
    from parity.optimizers.base import UpdateRule

__all__ = ["Recipe", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over time.

    Attributes:
        kind: `"constant"`, `"epochs"` (one value per epoch, the last one stays), `"inverse-time"`
            (rate / (1 + decay·t), t = updates done: Keras' legacy `decay`), or a framework's own name for another law.
        values: the rate, or the rates per epoch.
        decay: of inverse-time, per update.
        start: which of the rates per epoch is in force: the epochs that a checkpoint has behind it. The last one stays.
        config: settings of another law, for display.
    """

    kind: str = "constant"
    values: tuple[float, ...] = (0.001,)
    decay: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    start: int = 0

    @property
    def first(self) -> float:
        """The rate of the first update from here."""
        return self.values[min(self.start, len(self.values) - 1)] if self.values else float("nan")

    def __str__(self) -> str:
        if self.kind == "inverse-time":
            return f"{self.first:g} / (1 + {self.decay:g}·t)"
        if self.kind == "epochs" and len(set(self.values)) > 1:
            runs: list[list[float]] = []
            for value in self.values:
                if runs and runs[-1][0] == value:
                    runs[-1][1] += 1
                else:
                    runs.append([value, 1])
            shown = [f"{v:g}" + (f" ×{int(n)}" if n > 1 else "") for v, n in runs[:6]]
            return ", ".join(shown) + (" …" if len(runs) > 6 else "")
        if self.kind in ("constant", "epochs"):
            return f"{self.first:g}"
        names = (name for name in self.config if name != "initial_learning_rate")
        told = ", ".join(f"{name} {self.config[name]}" for name in names if self.config[name] not in (None, False))
        return f"{self.kind} from {self.first:g}" + (f" ({told})" if told else "")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        loss: the loss with its reduction; None where there is none.
        optimizer: the update rule with its numbers; None where nothing says (an uncompiled model).
        learning_rate: the schedule.
        weight_decay: coefficient wd of a coupled decay: wd·w is added to the gradient (times each param's multiplier).
        decoupled_decay: coefficient of a decoupled decay: w loses rate·coefficient·w before the step.
        clip: name → value of gradient clipping (`clipnorm`, `clipvalue`, `global_clipnorm`).
        metrics: what is counted, e.g. `("top-1 error",)`.
        batch_size: images per update; None where unknown.
        sub_batches: parts of a batch that are run one after the other, their gradients added up, before an update.
        epochs: passes over the data; None where unknown.
        steps_done: updates the optimizer has behind it, as the file says.
        slots: param id → slot name → array as the file holds it (a training checkpoint).
        defaults: names of the fields above that the file does not hold: the trainer's own default stands in.
        origin: where the recipe comes from, e.g. `"meta.trainOpts"` or `"compile()"`.
        version: the trainer's release, where releases differ: `"beta25"` or `"head"` of MatConvNet; empty otherwise.
        extras: what else moves the weights, by Keras' argument: how often an average is taken over
            and what of it stays (`ema_overwrite_frequency`, `ema_momentum`), `gradient_accumulation_steps`. No formula
            of an update rule covers it.
        custom: name of the user's own class that the optimizer is of; it may do more than its settings say.
        notes: facts a reader should know.
    """

    loss: Loss | None = None
    optimizer: UpdateRule | None = None
    learning_rate: Schedule = field(default_factory=Schedule)
    weight_decay: float = 0.0
    decoupled_decay: float = 0.0
    clip: Mapping[str, float] = field(default_factory=dict, hash=False)
    metrics: tuple[str, ...] = ()
    batch_size: int | None = None
    sub_batches: int = 1
    epochs: int | None = None
    steps_done: int = 0
    slots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    defaults: frozenset[str] = frozenset()
    origin: str = ""
    version: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)
    custom: str = ""
    notes: tuple[str, ...] = ()
