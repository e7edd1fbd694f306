"""An inspection as rich renderables: the layers, the recipe, and what a reader should know about the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from parity.layers.base import Opaque
from parity.reports.console import PROSE, bullets
from parity.reports.tables import plain_table
from parity.reports.words import clean, plural, shape_words
from parity.wording import kind_words, recipe_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parity.inspection import Inspection
    from parity.network import Layer, Param

__all__ = ["render"]

_WIDE = 110
_LEARNED = ("kernel", "bias", "gamma", "beta")
_FRAMEWORKS = {"matconvnet": "MatConvNet", "keras": "Keras"}


def render(inspection: Inspection, width: int) -> Iterator[RenderableType]:
    """The whole inspection, piece by piece; below 110 columns a layer takes two lines."""
    network, recipe = inspection.network, inspection.recipe
    inputs = ", ".join(
        f"{clean(name)} {shape_words(shape) or 'of any shape'}" for name, shape in network.inputs.items()
        if name not in network.labels
    )  # fmt: skip
    head = Text()
    head.append(clean(inspection.path), style="bold")
    head.append(f"  {_FRAMEWORKS.get(network.framework, network.framework)}")
    if network.name:
        head.append(f", {clean(network.name)}")
    yield head
    if inputs:
        yield Text.assemble(("input ", "dim"), inputs)
    yield Text()
    yield _layers(inspection, wide=width >= _WIDE)
    fixed = inspection.count - inspection.trainable_count
    yield Text.assemble(
        (f"{plural(len(network.layers), 'layer')}, {plural(inspection.count, 'parameter')}", "bold"),
        f" ({fixed} of them not trained)" if fixed else "",
    )
    yield Text()
    yield _recipe(inspection)
    remarks = [*network.remarks, *recipe.notes]
    if remarks:
        yield Text()
        yield Text("Remarks", style="bold")
        yield Constrain(bullets(remarks), min(width, PROSE))


def _layers(inspection: Inspection, *, wide: bool) -> Table:
    fold: dict[str, Any] = {"overflow": "fold"}
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    multipliers = any(_multipliers(inspection.params_of(layer)) for layer in inspection.network.layers)
    last = [("multipliers", fold)] if multipliers else []
    if wide:
        heads = [
            ("layer", fold),
            ("type", fold),
            ("fields", fold),
            ("output", {"no_wrap": True}),
            ("parameters", right),
        ]
        table = plain_table(*heads, *last, ("remarks", fold), title="Layers")
    else:
        table = plain_table(
            ("layer", {**fold, "ratio": 1}), ("output", fold), ("parameters", right), *last, title="Layers"
        )
        table.expand = True
    for layer in inspection.network.layers:
        table.add_row(*_row(inspection, layer, wide=wide, multipliers=multipliers))
    return table


def _row(inspection: Inspection, layer: Layer, *, wide: bool, multipliers: bool) -> list[Text]:
    params = inspection.params_of(layer)
    words = clean(kind_words(layer.kind))
    kind = "" if isinstance(layer.kind, Opaque) else words
    remarks = "; ".join(dict.fromkeys(map(clean, layer.remarks)))
    if isinstance(layer.kind, Opaque) and layer.kind.runs_code and "code" not in remarks:
        remarks = "; ".join(filter(None, ["runs code", remarks]))
    count = sum(_size(param) for param in params)
    name, type_ = Text(clean(layer.name), style="bold"), clean(layer.source_type or layer.kind.name)
    shape = Text(shape_words(layer.shape) or ("" if layer.shape == () else "?"))
    number = Text(str(count) if params else "", style="" if params else "dim")
    rates = [Text(_multipliers(params), style="dim")] if multipliers else []
    loud = "bold yellow" if remarks else ""
    if wide:
        return [name, Text(type_), Text(kind, style="dim"), shape, number, *rates, Text(remarks, style=loud)]
    lead = Text.assemble(name, f"  {type_}" if type_ != kind else "")
    lead.append(f"\n{kind}" if kind else "", style="dim")
    lead.append(f"\n{remarks}" if remarks else "", style=loud)
    return [lead, shape, number, *rates]


def _size(param: Param) -> int:
    from math import prod

    return prod(param.shape)


def _multipliers(params: list[Param]) -> str:
    """What sets a layer's parameters apart in training, one number per parameter; empty where nothing does."""
    words = []
    if any(param.trainable and param.rate_multiplier != 1 for param in params):
        words.append("rate " + " ".join(f"×{param.rate_multiplier:g}" for param in params))
    if any(param.decay_multiplier != 1 for param in params):
        words.append("decay " + " ".join(f"×{param.decay_multiplier:g}" for param in params))
    words += [f"L2 {param.l2:g} on {clean(param.role)}" for param in params if param.l2]
    words += [f"L1 {param.l1:g} on {clean(param.role)}" for param in params if param.l1]
    frozen = [
        param.role for param in params if not param.trainable and param.role in ("kernel", "bias", "gamma", "beta")
    ]
    words += ["frozen"] if frozen else []
    return ", ".join(words)


def _recipe(inspection: Inspection) -> RenderableType:
    recipe = inspection.recipe
    title = f"Recipe ({clean(recipe.origin)})" if recipe.origin else "Recipe"
    lines = [line for line in recipe_words(recipe) if line[1]]
    if recipe.optimizer is None and recipe.loss is None:
        return Text.assemble(("Recipe", "bold"), "  the file holds none: the model was not compiled")
    table = plain_table(("", {"no_wrap": True}), ("", {"overflow": "fold"}), title=title)
    table.show_header = False
    for name, value, default in lines:
        table.add_row(Text(name, style="dim"), Text.assemble(clean(value), ("  (default)" if default else "", "dim")))
    return table
