"""Loss, optimizer, rates, weight decay, frozen layers, precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.faults.nets import Node
from bench.faults.planted.base import Plant, Rng, fault
from bench.faults.scene import Scene, learners, pick
from bench.faults.spelling import parts

Recipes = Callable[[Scene], None]


def trained(cause: str, change: Recipes, *true: str) -> Plant:
    """A fault of the recipe as a whole: it shows at the first layer that learns."""

    def plant(scene: Scene, rng: Rng) -> None:
        change(scene)
        scene.true |= set(true)
        scene.plant(cause, "update", learners(scene.ref)[0])

    return plant


def sgd(**options: Any) -> Recipes:
    """Other options of SGD."""
    return lambda scene: scene.optimize(**options)


def other(name: str, **options: Any) -> Recipes:
    """Another optimizer."""
    return lambda scene: scene.train(optimizer=name, options=options)


def reference(**options: Any) -> Recipes:
    """Other options of the reference's trainer."""

    def change(scene: Scene) -> None:
        recipe = scene.ref.recipe
        scene.ref = replace(scene.ref, recipe=replace(recipe, options={**recipe.options, **options}))

    return change


def both(*changes: Recipes) -> Recipes:
    """One after the other."""

    def change(scene: Scene) -> None:
        for one in changes:
            one(scene)

    return change


def solver(name: str, **options: float) -> Recipes:
    """The reference trains with a solver of `examples/+solver`."""
    return reference(solver=name, solverOpts=options)


# ----------------------------------------------------------------------------------------------------------------- kind

_ADAM = {"eps": 1e-7, "beta1": 0.9, "beta2": 0.999}
"""Options of solver.adam, whose epsilon is called eps."""
KIND = "optimizer-kind"
fault(KIND, "Adam for SGD", "lenet residual", trained(KIND, other("Adam", learning_rate=0.01)))
fault(KIND, "RMSprop for SGD", "alex", trained(KIND, other("RMSprop", learning_rate=0.01)))
fault(KIND, "Adagrad for SGD", "normalised", trained(KIND, other("Adagrad", learning_rate=0.01)))
for _name in ("Adamax", "Nadam", "Ftrl", "Lion"):
    fault(KIND, f"{_name} for SGD", "lenet", trained(KIND, other(_name, learning_rate=0.01)))
fault(KIND, "a class of its own", "lenet", trained(KIND, lambda s: s.train(optimizer="own:sign")))
fault(KIND, "accumulates", "residual", trained(KIND, sgd(gradient_accumulation_steps=2)))
fault(KIND, "SGD for Adam", "lenet", trained(KIND, solver("adam", eps=1e-8, beta1=0.9, beta2=0.999)))

# ----------------------------------------------------------------------------------------------------------------- rate

RATE = "optimizer-learning-rate"
fault(RATE, "1.1 times", "lenet inception", trained(RATE, sgd(learning_rate=0.011)))
fault(RATE, "1.0001 times", "residual", trained(RATE, sgd(learning_rate=0.010001)))
fault(RATE, "a tenth", "alex", trained(RATE, sgd(learning_rate=0.001)))
_SLOW = ("InverseTimeDecay", {"initial_learning_rate": 0.01, "decay_steps": 1, "decay_rate": 1e-3})
_STEPS = ("PiecewiseConstantDecay", {"boundaries": [1], "values": [0.01, 0.005]})
_EXPONENTIAL = ("ExponentialDecay", {"initial_learning_rate": 0.01, "decay_steps": 1, "decay_rate": 0.99})
fault(RATE, "shrinks from step 2 on", "normalised", trained(RATE, sgd(learning_rate=_SLOW)))
fault(RATE, "halved after two steps", "lenet", trained(RATE, sgd(learning_rate=_STEPS)))
fault(RATE, "exponential", "residual", trained(RATE, sgd(learning_rate=_EXPONENTIAL)))
fault(
    RATE,
    "Adam",
    "lenet",
    trained(RATE, both(solver("adam", **_ADAM), other("Adam", learning_rate=0.012))),
)


fault(RATE, "inside a class", "lenet", trained(RATE, lambda s: s.train(optimizer="own:rate")))


def multiplier(rates: tuple[float, ...], *, keras: bool = False) -> Plant:
    """One layer of one side learns at other rates."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of("conv", lambda n: n.fields["bias"]), rng)
        if keras:
            named = zip(parts(node), rates, strict=False)
            scene.train(rates={f"{node.name}.{part}": rate for part, rate in named if rate != 1})
        else:
            scene.ref = scene.ref.edited(node.name, learningRate=rates)
        scene.plant("optimizer-lr-multiplier", "update", node.name)

    return plant


MULTIPLIER = "optimizer-lr-multiplier"
fault(MULTIPLIER, "biases twice", "lenet alex inception", multiplier((1.0, 2.0)))
fault(MULTIPLIER, "a tenth", "normalised", multiplier((0.1, 0.1)))
fault(MULTIPLIER, "ten times", "residual", multiplier((10.0, 20.0)))
fault(MULTIPLIER, "in Keras only", "lenet", multiplier((1.0, 2.0), keras=True))

# ------------------------------------------------------------------------------------------------------------- momentum

MOMENTUM = "optimizer-momentum"
fault(MOMENTUM, "0.8", "lenet residual", trained(MOMENTUM, sgd(momentum=0.8)))
fault(MOMENTUM, "0.9002", "alex", trained(MOMENTUM, sgd(momentum=0.9002)))
fault(MOMENTUM, "inside a class", "lenet", trained(MOMENTUM, lambda s: s.train(optimizer="own:momentum")))
fault(MOMENTUM, "beta1 of Adam", "residual",
      trained(MOMENTUM, both(solver("adam", **_ADAM), other("Adam", learning_rate=0.01, beta_1=0.8))))  # fmt: skip
fault(MOMENTUM, "none", "inception", trained(MOMENTUM, sgd(momentum=0.0)))
NESTEROV = "optimizer-nesterov"
fault(NESTEROV, "in Keras only", "lenet normalised", trained(NESTEROV, sgd(nesterov=True)))
fault(NESTEROV, "in the reference only", "residual", trained(NESTEROV, reference(nesterovUpdate=True)))

# --------------------------------------------------------------------------------------------------------- weight decay

MISSING = "optimizer-weight-decay-missing"
fault(MISSING, "none", "lenet residual", trained(MISSING, lambda s: s.train(decay=0.0)))
fault(MISSING, "twice", "alex", trained(MISSING, lambda s: s.train(decay=0.001)))
fault(MISSING, "1.1 times", "inception", trained(MISSING, lambda s: s.train(decay=0.00055)))


def _biases_spared(scene: Scene) -> None:
    scene.train(undecayed=frozenset(f"{n.name}.bias" for n in scene.ref.of("conv")))


def _one_spared(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv"), rng)
    scene.train(undecayed=frozenset(f"{node.name}.{part}" for part in parts(node)))
    scene.plant(MISSING, "update", node.name)


def _none_in_reference(scene: Scene) -> None:
    scene.ref = replace(scene.ref, recipe=replace(scene.ref.recipe, decay=0.0))


def _multiplied(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: n.fields["bias"]), rng)
    scene.ref = scene.ref.edited(node.name, weightDecay=(1.0, 0.0))
    scene.plant(MISSING, "update", node.name)


fault(MISSING, "biases spared", "lenet", trained(MISSING, _biases_spared))
fault(MISSING, "one layer spared", "residual", _one_spared)
fault(MISSING, "biases spared in the reference", "normalised", _multiplied)
fault(MISSING, "inside a class", "lenet", trained(MISSING, lambda s: s.train(optimizer="own:decay")))
fault(MISSING, "in Keras only", "normalised", trained(MISSING, _none_in_reference))

DECOUPLED = "optimizer-weight-decay-decoupled"


def _decoupled(scene: Scene) -> None:
    scene.train(decay=0.0)
    scene.optimize(weight_decay=0.0005)


fault(DECOUPLED, "SGD(weight_decay=)", "lenet alex", trained(DECOUPLED, _decoupled))
fault(
    DECOUPLED,
    "AdamW",
    "normalised",
    trained(
        DECOUPLED,
        both(
            solver("adam", **_ADAM),
            lambda s: s.train(decay=0.0),
            other("AdamW", learning_rate=0.01, weight_decay=0.0005),
        ),
    ),
)


def _as_rate(scene: Scene) -> None:
    scene.spell(module="tf_keras")
    scene.train(decay=0.0, optimizer="legacy.SGD")
    scene.optimize(decay=0.0005)


AS_RATE = "optimizer-weight-decay-as-lr-decay"
fault(AS_RATE, "legacy SGD(decay=)", "lenet normalised", trained(AS_RATE, _as_rate))

# ---------------------------------------------------------------------------------------------------- epsilon, clipping

EPSILON = "optimizer-epsilon"
fault(
    EPSILON,
    "Adam 1e-7 for 1e-8",
    "lenet",
    trained(EPSILON, both(solver("adam", **{**_ADAM, "eps": 1e-8}), other("Adam", learning_rate=0.01))),
)
fault(
    EPSILON,
    "Adam 1e-3 for 1e-7",
    "residual",
    trained(EPSILON, both(solver("adam", **_ADAM), other("Adam", learning_rate=0.01, epsilon=1e-3))),
)
fault(
    EPSILON,
    "RMSprop inside the root",
    "lenet alex",
    trained(
        EPSILON,
        both(solver("rmsprop", epsilon=1e-6, rho=0.9), other("RMSprop", learning_rate=0.01, rho=0.9, epsilon=1e-6)),
    ),
)
CLIPPING = "optimizer-clipping"
fault(CLIPPING, "inside a class", "lenet", trained(CLIPPING, lambda s: s.train(optimizer="own:clip")))
fault(CLIPPING, "clipvalue", "lenet", trained(CLIPPING, sgd(clipvalue=1e-3)))
fault(CLIPPING, "clipnorm", "residual", trained(CLIPPING, sgd(clipnorm=1e-2)))
fault(CLIPPING, "global_clipnorm", "alex", trained(CLIPPING, sgd(global_clipnorm=0.05)))

# --------------------------------------------------------------------------------------------------------------- frozen


def _frozen(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv"), rng)
    scene.train(frozen=frozenset({node.name}))
    scene.plant("layer-frozen", "update", node.name)


def _frozen_reference(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: n.fields["bias"]), rng)
    scene.ref = scene.ref.edited(node.name, learningRate=(0.0, 0.0))
    scene.true.add(MULTIPLIER)
    scene.plant("layer-frozen optimizer-lr-multiplier", "update", node.name)


fault("layer-frozen", "in Keras", "lenet residual", _frozen)
fault("layer-frozen", "in the reference", "alex", _frozen_reference)

# ----------------------------------------------------------------------------------------------------------------- loss


def lost(cause: str, phase: str = "loss", *, onehot: bool = False, **loss: Any) -> Plant:
    """Another loss."""

    def plant(scene: Scene, rng: Rng) -> None:
        scene.train(loss=loss)
        if onehot:
            scene.spell(onehot=True)
            assert scene.batch is not None
            scene.batch["y"] = np.eye(scene.ref.classes(), dtype=np.float32)[scene.batch["y"]]
        scene.plant(cause, phase, "loss")

    return plant


fault("loss-reduction", "sum", "lenet residual", lost("loss-reduction", reduction="sum"))
fault("loss-kind", "mean squared error", "lenet", lost("loss-kind", onehot=True, kind="MeanSquaredError"))
fault("loss-kind", "hinge", "residual", lost("loss-kind", onehot=True, kind="CategoricalHinge"))
fault("loss-kind", "binary cross-entropy", "alex", lost("loss-kind", onehot=True, kind="BinaryCrossentropy"))
fault("loss-kind", "label smoothing", "normalised", lost("loss-kind", onehot=True, label_smoothing=0.1))
fault("loss-kind", "label smoothing 1e-3", "lenet", lost("loss-kind", onehot=True, label_smoothing=1e-3))


def _weights_of_losses(scene: Scene, rng: Rng) -> None:
    scene.train(weights={})
    scene.plant("loss-reduction loss-kind", "loss backward", ("loss2", "loss"))


fault("loss-reduction", "a loss's weight", "two_heads", _weights_of_losses)

# ------------------------------------------------------------------------------------------------------------ precision


def precision(policy: str) -> Plant:
    """The whole port in another precision."""

    def plant(scene: Scene, rng: Rng) -> None:
        scene.spell(policy=policy)
        first: Node = scene.ref.nodes[0]
        scene.plant("dtype-low-precision", "forward", first.name)

    return plant


fault("dtype-low-precision", "mixed_float16", "lenet", precision("mixed_float16"))
fault("dtype-low-precision", "mixed_bfloat16", "residual", precision("mixed_bfloat16"), mode="eval")

# ------------------------------------------------------------------------------------------------------------ gradients


def gradient(kind: str) -> Plant:
    """A layer of the user's own whose forward pass is right and whose gradient is not."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of("relu", lambda n: not n.fields["leak"]), rng)
        scene.port = scene.port.replaced(node.name, kind=kind)
        scene.plant("unknown", "backward", node.name, fix=False, confirm=False)

    return plant


fault("unknown", "guided gradient", "lenet residual", gradient("guided"))
fault("unknown", "gradient times 1.0002", "inception", gradient("steeper"))


def _noisy(scene: Scene, rng: Rng) -> None:
    """A layer of the user's own that adds a little noise whenever it runs."""
    node = pick(scene.ref.of("relu", lambda n: not n.fields["leak"]), rng)
    scene.port = scene.port.replaced(node.name, kind="noisy")
    scene.plant("nondeterminism", "forward", node.name, fix=False, confirm=False, unverified=True)


fault("nondeterminism", "noise of 1e-3", "lenet residual", _noisy)
fault("nondeterminism", "eval", "inception", _noisy, mode="eval")
