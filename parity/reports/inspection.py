"""An inspection as rich renderables: the layers, the recipe, and what a reader should know about the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from parity.layers.base import Opaque
from parity.network import STATISTICS
from parity.reports.console import PROSE, bullets
from parity.reports.tables import plain_table
from parity.reports.words import clean, plural, shape_words
from parity.wording import kind_words, recipe_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parity.inspection import Inspection
    from parity.network import Layer, Network, Param
    from parity.recipe import Recipe

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
    version, engine = network.meta.get("keras"), network.meta.get("engine")
    if version and engine:
        head.append(f" {clean(str(version))}, runs under {clean(str(engine))}")
    if network.name:
        head.append(f", {clean(network.name)}")
    yield head
    if inputs:
        yield Text.assemble(("input ", "dim"), inputs)
    if network.objectives:
        weighted = (f"{clean(name)} ×{weight:g}" for name, weight in network.objectives.items())
        yield Text.assemble(("objective ", "dim"), ", ".join(weighted))
    yield Text()
    yield _layers(inspection, wide=width >= _WIDE)
    fixed = inspection.count - inspection.trainable_count
    yield Text.assemble(
        (f"{plural(len(network.layers), 'layer')}, {plural(inspection.count, 'parameter')}", "bold"),
        f" ({fixed} of them not trained)" if fixed else "",
    )
    sizes = _sizes(inspection, width)
    if sizes is not None:
        yield Text()
        yield sizes
        yield Text(_memory(inspection), style="bold")
    yield Text()
    yield _recipe(inspection)
    remarks = [*network.remarks, *recipe.notes]
    if remarks:
        yield Text()
        yield Text("Remarks", style="bold")
        yield Constrain(bullets(remarks), min(width, PROSE))


def _layers(inspection: Inspection, *, wide: bool) -> Table:
    reads = _wiring(inspection.network)
    fold: dict[str, Any] = {"overflow": "fold"}
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    if wide:
        multipliers = any(_multipliers(inspection.params_of(layer)) for layer in inspection.network.layers)
        last = [("multipliers", fold)] if multipliers else []
        last += [("reads", fold)] if reads else []
        heads = [
            ("layer", fold),
            ("type", fold),
            ("fields", fold),
            ("output", {"no_wrap": True}),
            ("parameters", right),
        ]
        table = plain_table(*heads, *last, ("remarks", fold), title="Layers")
        rows = (_wide_row(inspection, layer, multipliers, reads) for layer in inspection.network.layers)
    else:
        heads = [("layer", {**fold, "ratio": 1}), ("output", fold), ("parameters", right)]
        table = plain_table(*heads, title="Layers")
        table.expand = True
        rows = (_narrow_row(inspection, layer, reads) for layer in inspection.network.layers)
    for row in rows:
        table.add_row(*row)
    return table


def _wide_row(inspection: Inspection, layer: Layer, multipliers: bool, reads: dict[str, str]) -> list[Text]:
    params = inspection.params_of(layer)
    rates = [Text(_multipliers(params), style="dim")] if multipliers else []
    rates += [Text(reads.get(layer.name, ""), style="dim")] if reads else []
    remarks = Text(_remarks(layer), style="bold yellow")
    kind, number = Text(_fields(layer), style="dim"), Text(_count(params))
    return [
        Text(clean(layer.name), style="bold"),
        Text(_type(layer)),
        kind,
        Text(_output(layer)),
        number,
        *rates,
        remarks,
    ]


def _narrow_row(inspection: Inspection, layer: Layer, reads: dict[str, str]) -> list[Text]:
    params = inspection.params_of(layer)
    lead = Text()
    lead.append(clean(layer.name), style="bold")
    lead.append(f"  {_type(layer)}")
    read = reads.get(layer.name, "")
    lines = ((_fields(layer), "dim"), (_multipliers(params), "dim"), (f"reads {read}" if read else "", "dim"))
    for line, style in (*lines, (_remarks(layer), "bold yellow")):
        if line and line != _type(layer):
            lead.append(f"\n{line}", style=style)
    return [lead, Text(_output(layer)), Text(_count(params))]


def _wiring(network: Network) -> dict[str, str]:
    """Layer → the layers and inputs that it reads, for those that do not just read the layer above them."""
    found: dict[str, str] = {}
    before = next(iter(network.data(network.inputs)), "")
    for layer in network.layers:
        data = network.data(layer.inputs)
        if data != [before]:
            makers = (network.producers.get(tensor) for tensor in data)
            names = [tensor if maker is None else maker.name for tensor, maker in zip(data, makers, strict=True)]
            found[layer.name] = ", ".join(map(clean, names))
        before = layer.output
    return found


def _sizes(inspection: Inspection, width: int) -> Table | None:
    """What each layer sees of the first input, and what it takes in memory; None where the input is no map."""
    fields, network = inspection.receptive_fields, inspection.network
    if not fields:
        return None
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    heads = [("layer", {"overflow": "fold"}), ("sees", right), ("stride", right)]
    heads += [("offset", right)] if width >= _OFFSETS else []
    heads += [("output", right), ("parameters", right)]
    source = next(iter(network.data(network.inputs)))
    table = plain_table(*heads, title=f"Receptive fields on {clean(source)}, and memory for one image")
    for layer in network.layers:
        field = fields.get(layer.output)
        seen = [_by(field.size), _same(field.stride), _same(field.offset)] if field else ["", "", ""]
        held, made = inspection.parameter_bytes(layer), inspection.activation_bytes(layer)
        cells = [clean(layer.name), *seen[: 3 if width >= _OFFSETS else 2], "?" if made is None else amount(made)]
        table.add_row(*map(Text, [*cells, amount(held) if layer.params else ""]))
    return table


_OFFSETS = 76


def _memory(inspection: Inspection) -> str:
    made = inspection.activation_bytes()
    outputs = "" if made is None else f", {amount(made)} of outputs for each image"
    return f"{amount(inspection.parameter_bytes())} of parameters{outputs}, in single precision"


def amount(size: int) -> str:
    """Bytes in the largest unit that leaves three digits before the point at most: `1.5 KiB`."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def _by(values: tuple[float, ...]) -> str:
    return "×".join(f"{value:g}" for value in values)


def _same(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)


def _type(layer: Layer) -> str:
    return clean(layer.source_type or layer.kind.name)


def _fields(layer: Layer) -> str:
    return "" if isinstance(layer.kind, Opaque) else clean(kind_words(layer.kind))


def _output(layer: Layer) -> str:
    return shape_words(layer.shape) or ("" if layer.shape == () else "?")


def _count(params: list[Param]) -> str:
    return str(sum(math.prod(param.shape) for param in params)) if params else ""


def _remarks(layer: Layer) -> str:
    remarks = list(dict.fromkeys(map(clean, layer.remarks)))
    if isinstance(layer.kind, Opaque) and layer.kind.runs_code and not any("code" in remark for remark in remarks):
        remarks.insert(0, "runs code")
    return "; ".join(remarks)


def _multipliers(params: list[Param]) -> str:
    """What sets a layer's parameters apart in training, one number per parameter; empty where nothing does."""
    words = []
    if any(param.trainable and param.rate_multiplier != 1 for param in params):
        words.append("rate " + " ".join(f"×{param.rate_multiplier:g}" for param in params))
    learned = [param for param in params if param.role not in STATISTICS]  # statistics never decay
    if any(param.decay_multiplier != 1 for param in learned):
        words.append("decay " + " ".join(f"×{param.decay_multiplier:g}" for param in learned))
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
    for value in _slots(recipe):
        table.add_row(Text("slots", style="dim"), Text(clean(value)))
    return table


def _slots(recipe: Recipe) -> Iterator[str]:
    """What the optimizer remembers of each parameter, e.g. `mean, square of 12 parameters`; no array is read."""
    counts: dict[tuple[str, ...], int] = {}
    for held in recipe.slots.values():
        names = tuple(name for name in held if name != "step")
        counts[names] = counts.get(names, 0) + 1
    for names, count in counts.items():
        if names:
            yield f"{', '.join(names)} of {plural(count, 'parameter')}"
