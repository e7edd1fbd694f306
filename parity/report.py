"""What a comparison found: one value that every report renders and none computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from parity.changes import Change

if TYPE_CHECKING:
    from parity.detail import Detail

__all__ = [
    "PHASES",
    "SCHEMA",
    "STATUSES",
    "Finding",
    "FirstDivergence",
    "LayerRow",
    "Outcome",
    "Probe",
    "RecipeRow",
    "Report",
]

SCHEMA = "parity-report/1"

PHASES = ("input", "structure", "weights", "forward", "loss", "backward", "update")
"""The phases in the order in which a first divergence is looked for."""

STATUSES = ("match", "masked", "inherited", "born", "unpaired", "unverified")
"""The verdicts on a probe, from the mildest on."""


@dataclass(frozen=True)
class Probe:
    """One compared tensor.

    Attributes:
        layer: the reference's layer; empty where only Keras has it.
        keras_layer: the Keras layer; empty where only the reference has it.
        phase: one of `PHASES`.
        tensor: what is compared: `output`, `dx` (gradient with respect to the layer's input), `d<role>` (gradient of a
            parameter), `<role>` (a weight, or in phase update the change of a parameter), `shape`, `loss`.
        step: update step from 1; 1 in phases other than update.
        shape: the tensor's shape, batch included where it has one.
        status: one of `STATUSES`.
        max_abs: largest absolute difference, Keras against the reference, end to end.
        rms_rel: root mean square of that difference, relative to that of the reference.
        floor: the noise floor, absolute, root mean square.
        isolated_x_floor: distance of the isolated Keras tensor from the truth in units of the floor; None if not run.
        propagated_x_floor: the same end to end.
        note: a few words where there is something to say (`"ties"`, `"true gradient is zero"`).
    """

    layer: str
    keras_layer: str
    phase: str
    tensor: str
    step: int = 1
    shape: tuple[int, ...] = ()
    status: str = "match"
    max_abs: float | None = None
    rms_rel: float | None = None
    floor: float | None = None
    isolated_x_floor: float | None = None
    propagated_x_floor: float | None = None
    note: str = ""


@dataclass(frozen=True)
class FirstDivergence:
    """The earliest phase and probe at which the sides disagree by a fault born there (fields as in `Probe`)."""

    phase: str
    layer: str
    keras_layer: str
    tensor: str
    step: int
    status: str
    isolated: float | None = None
    propagated: float | None = None
    floor: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Finding:
    """A cause.

    Attributes:
        cause: slug of `parity rule`.
        severity: `"divergence"`, or `"note"`, which never changes the verdict.
        layer, keras_layer: where; empty for the recipe as a whole.
        phase: where it acts first.
        confirmed: True only when the edited reference reproduced the Keras tensors, or when a copy of the Keras model
            in which nothing but the cause was put right matched the reference.
        evidence: one or two sentences with the numbers of both sides.
        fix: the Keras line that would change; empty where there is none.
        fix_verified: True only when the fix was run and the divergence was gone.
        changes: the fix as values that can be applied to a copy of the Keras model; empty where there is none.
    """

    cause: str
    severity: str
    layer: str
    keras_layer: str
    phase: str
    evidence: str
    fix: str = ""
    confirmed: bool = False
    fix_verified: bool = False
    changes: tuple[Change, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class LayerRow:
    """One line of the table of layers.

    Attributes:
        layer, keras_layer: names; one is empty where the other has no partner.
        kind, keras_kind: what each is, with the fields that matter, e.g. `conv 3×3 /2 groups 2`.
        shape: the output's shape without batch, as the reference has it.
        cells: phase → (status, isolated ×floor or None, propagated relative error or None); absent where there is none.
        inputs: the rows that feed it, by their reference's name, else their Keras name.
    """

    layer: str
    keras_layer: str
    kind: str
    keras_kind: str
    shape: tuple[int | None, ...]
    cells: Mapping[str, tuple[str, float | None, float | None]]
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecipeRow:
    """One line of the recipe side by side: name, both values as text, whether they agree, is `ref` a default."""

    name: str
    ref: str
    keras: str
    same: bool
    default: bool = False

    @property
    def word(self) -> str:
        """`same`, `differs`, or `not stated`: a Keras file keeps neither epochs nor batch size, which is no fault."""
        return "same" if self.same else "differs" if self.ref and self.keras else "not stated"


@dataclass(frozen=True)
class Outcome:
    """What the batch's predictions say.

    Attributes:
        images: how many.
        differ: how many predictions (top-1 class) differ between the sides.
        ref_correct, keras_correct: how many each side gets right; None without labels.
    """

    images: int
    differ: int
    ref_correct: int | None = None
    keras_correct: int | None = None


@dataclass(frozen=True, repr=False)
class Report:
    """The result of a comparison; `verdict` is `"match"`, `"diverged"` or `"unverified"`."""

    verdict: str
    first_divergence: FirstDivergence | None
    findings: tuple[Finding, ...]
    probes: tuple[Probe, ...]
    layers: tuple[LayerRow, ...]
    recipe: tuple[RecipeRow, ...]
    outcome: Outcome | None
    notes: tuple[str, ...]
    environment: Mapping[str, Any]
    inputs: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    phases: tuple[str, ...] = PHASES
    details: tuple[Detail, ...] = field(default=(), compare=False)
    """Where and how tensors differ; empty unless it was asked for."""

    @property
    def exit_code(self) -> int:
        """0 match, 1 diverged, 2 unverified."""
        return {"match": 0, "diverged": 1}.get(self.verdict, 2)

    def to_json(self) -> str:
        """The report as a JSON document of schema `parity-report/1`."""
        from parity.reports.json import to_json

        return to_json(self)

    def to_html(self) -> str:
        """The report as one self-contained HTML page; with pictures of the tensors where it holds `details`."""
        from parity.reports.html import render

        return render(self)

    def __repr__(self) -> str:
        from parity.reports.console import verdict_line

        return f"<Report {verdict_line(self)}>"

    def __str__(self) -> str:
        from parity.reports.output import as_text

        return as_text(self)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from parity.reports.console import render

        yield from render(self, options.max_width)

    def _repr_html_(self) -> str:
        from parity.reports.notebook import to_html

        return to_html(self)
