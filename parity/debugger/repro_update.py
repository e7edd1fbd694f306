"""A script that shows how two optimizers move one layer's parameters otherwise, with Keras and numpy alone."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.debugger.repro_verdict import verdict_lines
from parity.debugger.stops import Stop
from parity.frameworks.keras.edits.code import text
from parity.network import Param
from parity.optimizers import OpaqueRule
from parity.optimizers.schedules import rate_at
from parity.recipe import Recipe
from parity.transfer import Link, places

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper

__all__ = ["update_script"]

Array = np.ndarray

_ROUNDING = 4.0
"""Noise floors of a move above which the script calls a difference more than rounding."""


def update_script(stepper: Stepper, stop: Stop) -> tuple[str, dict[str, Array]]:
    """The script of a layer's update, and its arrays: both optimizers on the reference's weights and gradients.

    Raises:
        NotImplementedError: one of the optimizers cannot be written down, or something outside of this layer has a
            part in its step.
    """
    run = stepper.comparison
    moves = {m.link.role: m for m in stepper.training.update(stop.step) if m.link.pair is stop.pair}
    told = [m for m in moves.values() if m.link.linear and _learned(m.link, run.course.passes[0].param_grads)]
    if not any(move.status == "born" for move in told):
        raise NotImplementedError("only averages of a batch normalisation move otherwise")
    made = _UpdateScript(stepper, stop)
    rows = [made.row(move.link, move.floor) for move in told]
    return made.text(rows), made.arrays


def _learned(link: Link, grads: Any) -> bool:
    return bool(link.ref) and link.to_keras is not None and all(key in grads for key in link.ref)


class _UpdateScript:
    """The script of one layer's update."""

    def __init__(self, stepper: Stepper, stop: Stop) -> None:
        self.run, self.stop = stepper.comparison, stop
        self.arrays: dict[str, Array] = {}
        self.variables: dict[str, dict[str, Param]] = {"reference": {}, "keras": {}}
        if self.run.ref.recipe.slots:
            raise NotImplementedError("the reference's optimizer goes on from a checkpoint")

    def row(self, link: Link, floor: float) -> str:
        """What is compared of one parameter: its name, the reference's arrays, Keras' and its layout, the rounding."""
        assert link.to_keras is not None
        course, name = self.run.course, link.role
        for at in range(self.stop.step):
            for kind, held in (("weight", course.weights[at]), ("gradient", course.passes[at].param_grads)):
                for key in link.ref:
                    self.arrays[f"reference {kind} {key} {at}"] = np.asarray(held[key], np.float32)
                self.arrays[f"keras {kind} {link.keras} {at}"] = np.asarray(link.to_keras(held), np.float32)
        self.variables["reference"] |= {key: self.run.ref.network.params[key] for key in link.ref}
        self.variables["keras"][link.keras] = self.run.keras.network.params[link.keras]
        self.arrays[f"layout {name}"] = places(link, self.run.ref.network.params)
        return f"    ({text(name)}, {list(link.ref)!r}, {text(link.keras)}, {_ROUNDING * floor:.3g}),"

    def text(self, rows: list[str]) -> str:
        """The whole script."""
        stop, keras = self.stop, _optimizer(self.run.keras)
        by_keras = hasattr(self.run.ref, "optimizer_code")
        rule = self.run.ref.recipe.optimizer
        whose = "the reference's optimizer" if by_keras else f"the reference's {'' if rule is None else rule.name}"
        words = textwrap.wrap(
            f"Update {stop.step} of {stop.layer}: {whose} against the optimizer of the Keras model, both on the "
            "reference's weights and gradients, step by step.", 110,
        )  # fmt: skip
        lines = ['"""' + words[0], *words[1:], "", "It needs numpy and Keras alone: python repro.py", '"""', ""]
        lines += ["import os", "import sys", "from pathlib import Path", ""]
        lines += ['os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")']
        lines += [f'os.environ["KERAS_BACKEND"] = {text(keras[2])}'] if keras[0] == "import keras" else []
        lines += ["", keras[0], "import numpy as np", ""]
        lines += ['ARRAYS = dict(np.load(Path(__file__).with_name("tensors.npz")))', f"STEPS = {stop.step}", "", ""]
        lines += self._by_keras("keras", keras[0], "actual", keras[1])
        if by_keras:
            lines += self._by_keras("reference", keras[0], "expected", _optimizer(self.run.ref, keras[0])[1])
        else:
            lines += list(self._by_rule(self.run.ref.recipe))
        return "\n".join([*lines, *_tail(rows)]) + "\n"

    def _by_keras(self, side: str, imports: str, name: str, optimizer: str) -> list[str]:
        """A side's moves by an optimizer of Keras."""
        held = {key: (param.l1, param.l2) for key, param in self.variables[side].items() if param.trainable}
        modern = imports == "import keras"
        lines = [
            f"# {side}: parameter, and what its regularizer adds: l1 * sign(w) + 2 * l2 * w.",
            f"PENALTIES = {held!r}",
            f"optimizer = {optimizer}",
        ]
        if not modern:
            lines += ["import tensorflow as tf"]
        variable = "keras.Variable" if modern else "tf.Variable"
        number = "keras.ops.convert_to_numpy" if modern else "np.asarray"
        given = "keras.ops.convert_to_tensor" if modern else "tf.constant"
        return [
            *lines,
            f'weights = {{key: {variable}(ARRAYS[f"{side} weight {{key}} 0"]) for key in PENALTIES}}',
            "for step in range(STEPS):",
            "    pairs = []",
            "    for key, (l1, l2) in PENALTIES.items():",
            f'        w, g = (ARRAYS[f"{side} {{kind}} {{key}} {{step}}"] for kind in ("weight", "gradient"))',
            "        weights[key].assign(w)",
            f"        g = {given}((g + np.float32(l1) * np.sign(w) + np.float32(2 * l2) * w).astype(np.float32))",
            "        pairs.append((g, weights[key]))",
            "    if pairs:  # a frozen layer has none",
            "        optimizer.apply_gradients(pairs)",
            f'before = {{key: ARRAYS[f"{side} weight {{key}} {{STEPS - 1}}"] for key in weights}}',
            f"{name} = {{key: {number}(w) - before[key] for key, w in weights.items()}}",
            "", "",
        ]  # fmt: skip

    def _by_rule(self, recipe: Recipe) -> Iterator[str]:
        """The reference's moves by its rule, in numpy, as its trainer computes them."""
        rule = recipe.optimizer
        if rule is None or isinstance(rule, OpaqueRule) or recipe.clip:
            raise NotImplementedError("the reference's update rule is not known, or clips all gradients together")
        yield "class Rule:"
        yield '    """The update rule of the reference."""'
        yield ""
        for name, held in rule.describe().items():
            yield f"    {name} = {held!r}"
        for method in (type(rule).start, type(rule).step):
            yield ""
            source = textwrap.dedent(inspect.getsource(method))
            for line in source.splitlines():
                yield textwrap.indent(line.replace("np.ndarray", "object"), "    ")
        yield ""
        yield ""
        held = {key: (p.rate_multiplier, p.decay_multiplier * recipe.weight_decay, p.l1, p.l2)
                for key, p in self.variables["reference"].items() if p.trainable}  # fmt: skip
        yield "# Parameter: factor on the rate, weight decay, and what a penalty adds."
        yield f"FACTORS = {held!r}"
        yield f"RATES = {[rate_at(recipe.learning_rate, at) for at in range(self.stop.step)]!r}"
        yield "rule, expected = Rule(), {}"
        yield "for key, (factor, decay, l1, l2) in FACTORS.items():"
        yield '    slots = rule.start(ARRAYS[f"reference weight {key} 0"])'
        yield "    for step in range(STEPS):"
        yield '        w, g = (ARRAYS[f"reference {kind} {key} {step}"] for kind in ("weight", "gradient"))'
        yield "        g = g + np.float32(l1) * np.sign(w) + np.float32(2 * l2 + decay) * w"
        yield f"        kept = w - np.float32(RATES[step] * factor * {recipe.decoupled_decay!r}) * w"
        yield "        after, slots = rule.step(kept, g.astype(np.float32), slots, RATES[step] * factor)"
        yield "    expected[key] = after - w"
        yield ""
        yield ""


def _optimizer(runner: Any, imports: str = "") -> tuple[str, str, str]:
    """What imports Keras, the optimizer's constructor, and the backend."""
    code = getattr(runner, "optimizer_code", None)
    if code is None or hasattr(runner, "inner"):
        raise NotImplementedError("the Keras side is no model that runs here")
    found = code()
    if imports and found[0] != imports:
        raise NotImplementedError("the two sides are models of two Kerases")
    return found


def _tail(rows: list[str]) -> list[str]:
    return [
        "# What is compared: name, the reference's parameters, Keras', what rounding may do.",
        *verdict_lines("name, refs, other, limit", rows, "moves", _EACH),
    ]


_EACH = (
    'still = {ref: np.zeros_like(ARRAYS[f"reference weight {ref} 0"]) for ref in refs}',
    "flat = np.concatenate([[0.0], *(expected.get(ref, still[ref]).ravel() for ref in refs)])",
    'want = flat[ARRAYS[f"layout {name}"]]',
    "have = actual.get(other, np.zeros(want.shape))",
)
"""What both sides make of one parameter; one that a side does not train stays as it is."""
