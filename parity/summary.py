"""A finished comparison as the tables that every report shows."""

from __future__ import annotations

from collections.abc import Sequence

from parity.align import Pair
from parity.case import Comparison
from parity.layers import Loss
from parity.report import STATUSES, LayerRow, Probe, RecipeRow
from parity.units import Unit
from parity.wording import kind_words, recipe_words

__all__ = ["layer_rows", "recipe_rows"]


def layer_rows(run: Comparison, probes: Sequence[Probe]) -> tuple[LayerRow, ...]:
    """One row per pair and per unit without a partner, in the reference's order.

    A cell takes the worst status of its phase's probes, and the largest errors among them.
    """
    alignment = run.alignment
    places = {unit.name: float(i) for i, unit in enumerate(alignment.ref_units)}
    feeders = _Feeders(run)
    rows: list[tuple[float, LayerRow]] = []
    for pair in alignment.pairs:
        rows.append((places[pair.ref.name], _row(run, pair, probes, feeders)))
    for unit in alignment.ref_only:
        cells = _cells([p for p in probes if p.layer == unit.name and not p.keras_layer])
        row = LayerRow(unit.name, "", kind_words(unit.kind), "", unit.shape or (), cells, feeders.of(unit, "ref"))
        rows.append((places[unit.name], row))
    after = -1.0
    by_keras = {pair.keras.name: places[pair.ref.name] for pair in alignment.pairs}
    for unit in alignment.keras_units:
        after = by_keras.get(unit.name, after)
        if unit in alignment.keras_only:
            cells = _cells([p for p in probes if p.keras_layer == unit.origin and not p.layer])
            row = LayerRow(
                "", _known_as(run, unit), "", kind_words(unit.kind), unit.shape or (), cells, feeders.of(unit, "keras")
            )
            rows.append((after + 0.5, row))
    return tuple(row for _, row in sorted(rows, key=lambda item: item[0]))


def _row(run: Comparison, pair: Pair, probes: Sequence[Probe], feeders: _Feeders) -> LayerRow:
    here = [p for p in probes if p.layer == pair.ref.name and p.keras_layer == pair.keras.origin]
    return LayerRow(
        layer=pair.ref.name,
        keras_layer=_known_as(run, pair.keras),
        kind=kind_words(pair.ref.kind),
        keras_kind=kind_words(pair.keras.kind),
        shape=pair.ref.shape or (),
        cells=_cells(here),
        inputs=feeders.of_pair(pair),
    )


class _Feeders:
    """Which rows feed which, by the names that rows are known by."""

    def __init__(self, run: Comparison) -> None:
        self.run, self.alone = run, {unit.output for unit in run.alignment.keras_only}

    def of_pair(self, pair: Pair) -> tuple[str, ...]:
        """The reference's wiring, and what Keras alone has before the pair."""
        extra = [t for t in pair.keras.inputs if t in self.alone]
        return tuple(dict.fromkeys([*self.of(pair.ref, "ref"), *self._named(extra, "keras")]))

    def of(self, unit: Unit, side: str) -> tuple[str, ...]:
        """The rows that a unit reads from on its own side."""
        return self._named(unit.inputs, side)

    def _named(self, tensors: Sequence[str], side: str) -> tuple[str, ...]:
        alignment = self.run.alignment
        made: list[str] = []
        for tensor in tensors:
            maker = (alignment.ref_makers if side == "ref" else alignment.keras_makers).get(tensor)
            if maker is None:
                continue
            pair = alignment.by_keras.get(tensor) if side == "keras" else None
            if side == "ref":
                made.append(maker.name)
            else:
                made.append(pair.ref.name if pair is not None else _known_as(self.run, maker))
        return tuple(dict.fromkeys(made))


def _known_as(run: Comparison, unit: Unit) -> str:
    """The Keras names of a unit's layers, e.g. `zero_padding2d + conv2d`."""
    names = [run.keras.network[name].origin or name for name in unit.layers]
    return " + ".join(dict.fromkeys(names)) if len(unit.layers) <= 3 else unit.origin


def _cells(probes: Sequence[Probe]) -> dict[str, tuple[str, float | None, float | None]]:
    made: dict[str, tuple[str, float | None, float | None]] = {}
    for phase in dict.fromkeys(p.phase for p in probes):
        here = [p for p in probes if p.phase == phase]
        status = max((p.status for p in here), key=STATUSES.index)
        isolated = [p.isolated_x_floor for p in here if p.isolated_x_floor is not None]
        # Noise on a true zero (a bias before batch normalisation) has no relative error worth the name.
        real = [p for p in here if p.status != "match" or (p.propagated_x_floor or 0) > 1 or (p.rms_rel or 0) < 1e-3]
        propagated = [p.rms_rel for p in real if p.rms_rel is not None and phase != "weights"]
        made[phase] = (status, max(isolated, default=None), max(propagated, default=None))
    return made


def recipe_rows(run: Comparison) -> tuple[RecipeRow, ...]:
    """Both recipes side by side, and what belongs to parameters: multipliers and penalties."""
    keras = {name: value for name, value, _ in recipe_words(run.keras.recipe)}
    ref = {name: (value, default) for name, value, default in recipe_words(run.ref.recipe)}
    rows: list[RecipeRow] = []
    for name in dict.fromkeys([*ref, *keras]):
        value, default = ref.get(name, ("", False))
        other = keras.get(name, "")
        losses = next(((p.ref.kind, p.keras.kind) for p in run.alignment.pairs if isinstance(p.ref.kind, Loss)), None)
        if name == "loss" and losses:
            value, other = kind_words(losses[0]), kind_words(losses[1])
        if name == "weight decay":
            value, other = _decays(run, "ref"), _decays(run, "keras")
        if value or other:
            rows.append(RecipeRow(name, value, other, value == other, default))
    mine, theirs = _factors(run, "ref"), _factors(run, "keras")
    if mine != theirs:
        rows.append(RecipeRow("learning-rate multipliers", mine, theirs, same=False))
    return tuple(rows)


def _decays(run: Comparison, side: str) -> str:
    """The coefficients of w that are added to gradients, and where, in words."""
    runner = run.ref if side == "ref" else run.keras
    made: dict[float, set[str]] = {}
    for link in run.links:
        key = (link.ref[0] if link.ref else "") if side == "ref" else link.keras
        param = runner.network.params.get(key)
        if param is None or not link.learned:
            continue
        factor = runner.recipe.weight_decay * param.decay_multiplier + 2 * param.l2
        made.setdefault(round(factor, 12), set()).add(link.role)
    if not made:
        return ""
    if len(made) == 1:
        value = next(iter(made))
        return f"{value:g}·w added to gradients" if value else "none"
    return ", ".join(f"{value:g}·w on {'/'.join(sorted(roles))}" for value, roles in sorted(made.items(), reverse=True))


def _factors(run: Comparison, side: str) -> str:
    """The factors on the learning rate, and where, in words."""
    params = run.ref.network.params if side == "ref" else run.keras.network.params
    made: dict[float, set[str]] = {}
    for link in run.links:
        if link.ref and link.keras and link.learned:
            made.setdefault(params[link.ref[0] if side == "ref" else link.keras].rate_multiplier, set()).add(link.role)
    if len(made) < 2:
        return f"{next(iter(made), 1.0):g} everywhere"
    return ", ".join(f"{factor:g} on {'/'.join(sorted(roles))}" for factor, roles in sorted(made.items(), reverse=True))
