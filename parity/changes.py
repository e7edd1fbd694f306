"""A change of the Keras side, as a value: what a finding proposes, what a copy is given, what a fix script says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ACTIONS", "Change", "holder"]

ACTIONS = {
    "argument": "give a layer's constructor other arguments",
    "replace": "put another layer in a layer's place",
    "insert": "put a new layer behind a layer (or behind an input)",
    "remove": "take a layer out",
    "rewire": "let a layer read other tensors, or the same in another order",
    "weights": "give a parameter another value",
    "optimizer": "build the optimizer otherwise",
    "loss": "compile with another loss, or weigh it otherwise",
    "regularize": "put a penalty on a parameter",
    "constrain": "bind a parameter's values after every update",
    "rate": "multiply a parameter's learning rate",
    "trainable": "freeze or unfreeze a layer",
    "input": "prepare the Keras model's inputs otherwise",
    "labels": "prepare the Keras model's labels otherwise",
}
"""What can be done, in words."""


@dataclass(frozen=True)
class Change:
    """One change of the Keras side.

    Attributes:
        action: a key of `ACTIONS`.
        layer: the Keras layer that it changes, as `Layer.origin` names it (`"block1/conv"` inside a submodel); empty
            for the recipe and the batch. `"conv:activation"` is the activation that is fused into `conv`; a layer
            that an earlier change inserts goes by its own name.
        values: what it takes, by action:
            argument: the constructor's argument → value, in Keras' words (`{"epsilon": 1e-05}`), lists for tuples;
                `padding` may be cells, [top, bottom, left, right]: a ZeroPadding layer is put before the layer, changed
                or taken out, or it becomes `"same"` where that is equal.
            replace, insert: `class_name` (of `keras.layers`) and `config` (its arguments); insert also `before: True`
                to put it in front of the layer instead of behind it, or `aside: True` for one that nothing reads but
                what is told to, and `inputs` for one that joins several: Keras layers (or inputs), for what they make
                themselves. Of several behind one layer the first is nearest.
            remove, rewire: for rewire `inputs`: Keras layers (or inputs), in order; `order`: a permutation of the
                present ones instead; `behind`: the layer to move it behind.
            weights: `role` (of the neutral vocabulary) and `value`: an array in the Keras layout.
            optimizer: `class_name` and `config`, or only the `config` to change, or only another class of the same law.
            loss: `class_name` and `config`, or only the `config` to change; or `weight`, a factor on the loss's weight.
                `output` names the output whose loss it is, where there are several.
            regularize: `role`, and `l2`, the coefficient c of a penalty c·‖w‖² that adds 2c·w; also `l1`, that of one
                which adds c·sign(w), or `penalty`, another one by `class_name` and `config`. None of them takes it off.
            constrain: `role` and `constraint`, by `class_name` and `config`; an empty one takes it off.
            rate: `role` and `factor`; Keras has no argument for it, a custom train step multiplies the gradients.
            trainable: `trainable`.
            input, labels: `code`, an expression of `x` (or `y`) for the script, and what parity does to the batch:
                `axes` (to transpose it by), `flip` (axes), `order` (of its rows), `reverse_channels`, `scale`, `offset`
                (per channel), `table` (old class id → new) or `shift` (and `classes`, modulo which).
    """

    action: str
    layer: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def holder(change: Change) -> str:
    """The regularizer or the constraint that a change gives a parameter, as code; `None` where it takes it off."""
    values, module = change.values, "keras.constraints" if change.action == "constrain" else "keras.regularizers"
    other = values.get("constraint") or values.get("penalty")
    if other:
        given = ", ".join(f"{name}={value!r}" for name, value in other["config"].items())
        return f"{module}.{other['class_name']}({given})"
    l1, l2 = values.get("l1", 0.0), values.get("l2", 0.0)
    if l1 and l2:
        return f"{module}.L1L2({l1:g}, {l2:g})"
    return f"{module}.L1({l1:g})" if l1 else f"{module}.L2({l2:g})" if l2 else "None"
