"""The rules about training: each fault at two sizes, with cause, place, proof and fix; what is alike is not claimed.

A row's divergences must be of its own cause alone. So the rows are each other's look-alikes: a rate against a factor of
one parameter, a summed loss and a clipped gradient; a momentum against Nesterov's; a missing decay against a decoupled
one, and one of the learning rate; an epsilon against its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.causes import FAMILIES
from parity.session import check
from tests import twins
from tests.frameworks.keras.real import TRACES

RECORDED = Path(__file__).parents[2] / "traces"
RNG = np.random.default_rng(5)
BATCH = {"x": RNG.standard_normal((8, 1, 1, 6)).astype(np.float32), "y": RNG.integers(0, 3, 8)}
ADAM = {"solver": "adam", "solverOpts": {"eps": 1e-7}}
BARE = {"weightDecay": 0.0}


def layers() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        twins.conv("fc1", rng, (1, 1, 6, 5)),
        {"type": "sigmoid", "name": "between"},
        twins.conv("fc2", rng, (1, 1, 5, 3)),
        {"type": "softmaxloss", "name": "loss"},
    ]


@dataclass(frozen=True)
class Port:
    """A Keras model of those layers.

    Attributes:
        optimizer: class and settings, or what makes it of the module and the model.
        decay: what the reference adds to the gradients, as L2 penalties; of these layers, or all.
        loss: of `compile()`.
        frozen: layers that are not trained.
        policy: of every layer.
        metrics: of `compile()`.
        legacy: whether tf_keras makes it.
        held: what each layer is given besides, of the module and the layer's name.
    """

    optimizer: Any = ("SGD", {"momentum": 0.9})
    decay: float = twins.DECAY
    decayed: tuple[str, ...] = ("fc1", "fc2")
    loss: Any = "sparse_categorical_crossentropy"
    frozen: tuple[str, ...] = ()
    policy: str = "float32"
    metrics: tuple[str, ...] = ()
    legacy: bool = False
    held: Callable[[Any, str], dict[str, Any]] | None = None

    def build(self) -> Any:
        import keras

        k = keras
        if self.legacy:
            import tf_keras as k
        x = t = k.Input((1, 1, 6))
        t = k.layers.Flatten(dtype=self.policy)(t)
        for name, units, activation in (("fc1", 5, "sigmoid"), ("fc2", 3, "softmax")):
            penalties = {}
            if self.decay and name in self.decayed:
                penalties = {f"{part}_regularizer": k.regularizers.L2(self.decay / 2) for part in ("kernel", "bias")}
            penalties |= self.held(k, name) if self.held else {}
            made = k.layers.Dense(units, activation, name=name, dtype=self.policy, **penalties)
            made.trainable = name not in self.frozen
            t = made(t)
        model = k.Model(x, t)
        optimizer = self.optimizer
        if callable(optimizer):
            optimizer = optimizer(k, model)
        else:
            name, settings = optimizer
            home = k.optimizers.legacy if self.legacy else k.optimizers
            settings = {key: law(k, value) for key, value in settings.items()}
            optimizer = getattr(home, name)(**{"learning_rate": 0.01, **settings})
        model.compile(optimizer=optimizer, loss=self.loss, metrics=[*self.metrics])
        return model


def law(k: Any, value: Any) -> Any:
    return getattr(k.optimizers.schedules, value[0])(**value[1]) if isinstance(value, tuple) else value


def sgd(**settings: Any) -> Port:
    return Port(("SGD", {"momentum": 0.9, **settings}))


def bare(held: Callable[[Any, str], dict[str, Any]] | None = None) -> Port:
    """No decay, and what is given."""
    return Port(decay=0.0, held=held)


def l1(size: float, bias: bool = False) -> Port:
    part = "bias" if bias else "kernel"
    return bare(lambda k, name: {f"{part}_regularizer": k.regularizers.L1(size)} if name == "fc2" else {})


def orthogonal(k: Any, name: str) -> dict[str, Any]:
    return {"kernel_regularizer": k.regularizers.OrthogonalRegularizer(0.01)}


def short(k: Any, name: str) -> dict[str, Any]:
    return {"kernel_constraint": k.constraints.MaxNorm(0.9)}


def positive(k: Any, name: str) -> dict[str, Any]:
    return {"bias_constraint": k.constraints.NonNeg()}


def tiny(**options: Any) -> Port:
    """So low a rate that a step is a hundred times the rounding of the weights."""
    return Port(("SGD", {"momentum": 0.9, "learning_rate": 3e-5}), 0.0, **options)


def other(name: str, decay: float = twins.DECAY, **settings: Any) -> Port:
    return Port((name, settings), decay)


def own(step: Callable[[Any, Any, Any, Any], tuple[Any, Any]], **settings: Any) -> Callable[[Any, Any], Any]:
    """An optimizer of the user's own: SGD that is given another gradient and rate than it was."""

    def made(k: Any, model: Any) -> Any:
        class Own(k.optimizers.SGD):
            def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
                gradient, learning_rate = step(k, gradient, variable, learning_rate)
                return super().update_step(gradient, variable, learning_rate)

        return Own(**{"learning_rate": 0.01, "momentum": 0.9, **settings})

    return made


def faster_bias(factor: float) -> Callable[[Any, Any], Any]:
    """An optimizer of the user's own that multiplies the gradient of a bias."""

    def made(k: Any, model: Any) -> Any:
        bias = model.get_layer("fc1").bias

        class Faster(k.optimizers.SGD):
            def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
                held = self._trainable_variables if trainable_variables is None else trainable_variables
                scaled = [g * factor if v is bias else g for g, v in zip(grads, held, strict=True)]
                return super().apply(scaled, trainable_variables)

        return Faster(learning_rate=0.01, momentum=0.9)

    return made


def stubborn(k: Any, model: Any) -> Any:
    """A class of the user's own whose momentum is another than it says."""

    class Stubborn(k.optimizers.SGD):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
            said, self.momentum = self.momentum, 0.8
            super().update_step(gradient, variable, learning_rate)
            self.momentum = said

    return Stubborn(0.01, momentum=0.9)


@dataclass(frozen=True)
class Row:
    """A planted fault, and what must be said of it.

    Attributes:
        cause: the slug.
        name: of the variant.
        port: the Keras side.
        ref: options of MatConvNet's trainer, or a Keras side that is the reference.
        rates: learningRate of fc1.
        at: layer and tensor of the first divergence, and its step.
        layer: of the finding; empty for the recipe as a whole.
        fixed: whether there is a fix that is verified.
        small: whether it is the small one of its kind.
        verify: whether the fix is tried; not where other rows try the same one.
    """

    cause: str
    name: str
    port: Port
    ref: Any = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    at: tuple[str, str, int] = ("fc1", "kernel", 1)
    layer: str = ""
    fixed: bool = True
    small: bool = False
    verify: bool = True


EMPTY = {"initial_accumulator_value": 0.0}
CLOSE = 0.7177  # what a norm of the batch exceeds by a ten-thousandth
COSINE = ("CosineDecay", {"initial_learning_rate": 0.01, "decay_steps": 10})
FALLING = ("ExponentialDecay", {"initial_learning_rate": 0.01, "decay_steps": 1, "decay_rate": 1 - 1e-4})
RATE, FACTOR = "optimizer-learning-rate", "optimizer-lr-multiplier"
MOMENTUM, NESTEROV, KIND = "optimizer-momentum", "optimizer-nesterov", "optimizer-kind"
MISSING, DECOUPLED = "optimizer-weight-decay-missing", "optimizer-weight-decay-decoupled"
AS_RATE, EPSILON, CLIPPING = "optimizer-weight-decay-as-lr-decay", "optimizer-epsilon", "optimizer-clipping"
ROWS = [
    Row(RATE, "twice", sgd(learning_rate=0.02)),
    Row(RATE, "1.00007 times", sgd(learning_rate=0.0100007), small=True, at=("fc1", "bias", 1), verify=False),
    Row(RATE, "none", sgd(learning_rate=0.0), verify=False),
    Row(RATE, "falls from step 2 on", sgd(learning_rate=COSINE), at=("fc1", "kernel", 2)),
    Row(RATE, "falls a little", sgd(learning_rate=FALLING), small=True, at=("fc1", "bias", 2)),
    Row(RATE, "inside a class", Port(own(lambda k, g, v, lr: (g, lr * 1.1)))),
    Row(RATE, "of another schedule", sgd(learning_rate=0.01), sgd(learning_rate=COSINE), at=("fc1", "kernel", 2)),
    Row(RATE, "of Adam", other("Adam", learning_rate=0.0101), ADAM, verify=False),
    Row(FACTOR, "biases twice", sgd(), rates=(1.0, 2.0), at=("fc1", "bias", 1), layer="fc1"),
    Row(FACTOR, "1.0001 times", sgd(), rates=(1.0, 1.0001), at=("fc1", "bias", 1), layer="fc1", small=True),
    Row(FACTOR, "in Keras only", Port(faster_bias(2.0)), at=("fc1", "bias", 1), layer="fc1"),
    Row(MOMENTUM, "0.5", sgd(momentum=0.5), at=("fc1", "kernel", 2)),
    Row(MOMENTUM, "0.9002", sgd(momentum=0.9002), at=("fc1", "kernel", 2), small=True, verify=False),
    Row(MOMENTUM, "none", sgd(momentum=0.0), at=("fc1", "kernel", 2), verify=False),
    Row(MOMENTUM, "inside a class", Port(stubborn), at=("fc1", "kernel", 2)),
    Row(MOMENTUM, "beta1 of Adam", other("Adam", beta_1=0.8), ADAM, at=("fc1", "kernel", 2), verify=False),
    Row(NESTEROV, "in Keras", sgd(nesterov=True)),
    Row(NESTEROV, "in the reference", sgd(), {"nesterovUpdate": True}, verify=False),
    Row(NESTEROV, "of little momentum", sgd(momentum=1e-4, nesterov=True), {"momentum": 1e-4}, small=True,
        at=("fc1", "bias", 1)),
    Row(MISSING, "none", Port(decay=0.0), layer="fc1"),
    Row(MISSING, "a tenth of it", Port(decay=0.0), {"weightDecay": 5e-5}, layer="fc1", small=True),
    Row(MISSING, "another", Port(decay=5.5e-4), layer="fc1", verify=False),
    Row(MISSING, "of one layer", Port(decayed=("fc1",)), layer="fc2", at=("fc2", "kernel", 1)),
    Row(MISSING, "in Keras only", Port(), BARE, layer="fc1"),
    Row(MISSING, "inside a class", Port(own(lambda k, g, v, lr: (g + 0.01 * v, lr))), layer="fc1"),
    Row(MISSING, "the reference's is decoupled", other("Adam", 0.0), other("AdamW", 0.0)),
    Row(MISSING, "an L1 penalty in Keras", l1(1e-3), BARE, layer="fc2", at=("fc2", "kernel", 1)),
    Row(MISSING, "an L1 penalty in the reference", bare(), l1(1e-4, bias=True), layer="fc2", small=True,
        at=("fc2", "bias", 2)),
    Row(MISSING, "another penalty", bare(orthogonal), bare(), layer="fc1"),
    Row(MISSING, "another penalty in the reference", bare(), bare(orthogonal), layer="fc1"),
    Row(DECOUPLED, "SGD", Port(("SGD", {"momentum": 0.9, "weight_decay": 0.1}), 0.0), {"weightDecay": 0.1},
        at=("fc1", "kernel", 2)),
    Row(DECOUPLED, "AdamW", other("AdamW", 0.0, weight_decay=5e-4), ADAM, small=True),
    Row(DECOUPLED, "of another size", other("AdamW", 0.0, weight_decay=0.0045), other("AdamW", 0.0)),
    Row(MISSING, "decoupled in the reference of a legacy class", Port(("Adam", {}), 0.0, legacy=True),
        Port(("AdamW", {"weight_decay": 0.01}), 0.0)),
    Row(RATE, "decays inside the reference", Port(decay=0.0),
        Port(("SGD", {"momentum": 0.9, "decay": 0.01}), 0.0, legacy=True), at=("fc1", "kernel", 2)),
    Row(RATE, "decays inside Keras, where no weight does", Port(("SGD", {"momentum": 0.9, "decay": 5e-4}), 0.0,
        legacy=True), BARE, at=("fc1", "kernel", 2)),
    Row(AS_RATE, "0.1", Port(("SGD", {"momentum": 0.9, "decay": 0.1}), 0.0, legacy=True), {"weightDecay": 0.1}),
    Row(AS_RATE, "0.0005", Port(("SGD", {"momentum": 0.9, "decay": 5e-4}), 0.0, legacy=True), small=True),
    Row(EPSILON, "1e-3 for 1e-7", other("Adam", epsilon=1e-3), ADAM),
    Row(EPSILON, "3e-7 for 1e-7", other("Adam", epsilon=3e-7), ADAM, small=True, verify=False),
    Row(EPSILON, "inside the root", other("RMSprop", rho=0.9, epsilon=1e-6),
        {"solver": "rmsprop", "solverOpts": {"epsilon": 1e-6, "rho": 0.9}}),
    Row(EPSILON, "outside the root of Adagrad", Port(("Adagrad", {"epsilon": 1e-3, **EMPTY}), 0.0, legacy=True),
        other("Adagrad", 0.0, epsilon=1e-3, **EMPTY)),
    Row(CLIPPING, "values", sgd(clipvalue=0.01)),
    Row(CLIPPING, "a norm, barely", sgd(clipnorm=CLOSE), small=True, at=("fc2", "kernel", 1)),
    Row(CLIPPING, "the norm of all", sgd(global_clipnorm=0.05), verify=False),
    Row(CLIPPING, "each for all", sgd(clipnorm=0.01), sgd(global_clipnorm=0.01)),
    Row(CLIPPING, "in the reference", sgd(), sgd(clipnorm=0.05)),
    Row(CLIPPING, "inside a class", Port(own(lambda k, g, v, lr: (k.ops.clip(g, -0.01, 0.01), lr)))),
    *[
        Row(KIND, name, other(name), verify=name in ("Adam", "Lion"))
        for name in ("Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion", "Lamb", "Adafactor")
    ],
    Row(KIND, "SGD for Adam", sgd(), ADAM),
    Row(KIND, "SGD for an RMSprop that Keras lacks", sgd(), {"solver": "rmsprop", "solverOpts": {"epsilon": 1e-5}}),
    Row(KIND, "beta2 of Adam", other("Adam", beta_2=0.998), ADAM, small=True),
    Row(KIND, "a class of its own", Port(own(lambda k, g, v, lr: (k.ops.sign(g), lr)))),
    Row(KIND, "accumulates", sgd(gradient_accumulation_steps=2)),
    Row(KIND, "accumulates for longer than was run", sgd(gradient_accumulation_steps=8)),
    Row(KIND, "another average", *(sgd(use_ema=True, ema_overwrite_frequency=2, ema_momentum=m) for m in (0.9, 0.8)),
        at=("fc1", "kernel", 2)),
    Row(KIND, "a bounded norm", bare(short), BARE, layer="fc1"),
    Row(KIND, "no negative bias in the reference", bare(), bare(positive), layer="fc1", at=("fc1", "bias", 1)),
    Row("layer-frozen", "in Keras", Port(frozen=("fc1",)), layer="fc1"),
    Row("layer-frozen", "in the reference", sgd(), rates=(0.0, 0.0), layer="fc1"),
    Row("layer-frozen", "the last", Port(frozen=("fc2",)), layer="fc2", at=("fc2", "kernel", 1)),
    Row("layer-frozen", "at a tiny rate", tiny(frozen=("fc1",)), tiny(), layer="fc1", small=True),
]  # fmt: skip


@cache
def reference(options: tuple[tuple[str, Any], ...], rates: tuple[float, ...], folder: Any) -> Any:
    made = layers()
    if rates:
        made[0]["learningRate"] = np.array(rates)
    path = folder / f"{abs(hash((options, rates)))}.mat"
    return twins.save(path, made, (1, 1, 6), **{key: dict(v) if isinstance(v, tuple) else v for key, v in options})


def frozen(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, tuple(v.items()) if isinstance(v, dict) else v) for key, v in options.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


def report_of(row: Row, port: Port, folder: Any) -> Any:
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    ref = row.ref.build() if isinstance(row.ref, Port) else reference(frozen(row.ref), row.rates, folder)
    return check(ref=ref, keras=port.build(), batch=BATCH, verify=row.verify)


def told(report: Any) -> str:
    found = [f"{f.severity} {f.cause} {f.layer} {f.confirmed} {f.fix_verified} {f.evidence}" for f in report.findings]
    return "\n".join([str(report.first_divergence), *found])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.cause}: {row.name}")
def test_a_fault_of_the_recipe_is_told_by_its_cause_and_no_other(row: Row, folder: Any) -> None:
    report = report_of(row, row.port, folder)
    first, said = report.first_divergence, told(report)
    assert first is not None, said
    assert (first.phase, (first.layer, first.tensor, first.step)) == ("update", row.at), said
    divergences = [f for f in report.findings if f.severity == "divergence"]
    assert [f.cause for f in divergences] == [row.cause], said
    found = divergences[0]
    assert (found.phase, found.layer) == ("update", row.layer), said
    assert found.confirmed, said
    assert not row.verify or bool(found.fix_verified) == row.fixed, said


CLEAN = [
    ("SGD", sgd(), {}),
    ("Nesterov's", sgd(nesterov=True), {"nesterovUpdate": True}),
    ("Adam", other("Adam"), ADAM),
    ("Adam that remembers long", other("Adam", beta_2=0.9999), {**ADAM, "solverOpts": {"eps": 1e-7, "beta2": 0.9999}}),
    ("AdamW", other("AdamW", 0.0), other("AdamW", 0.0)),
    ("one schedule", sgd(learning_rate=COSINE), sgd(learning_rate=COSINE)),
    ("one limit", sgd(clipnorm=0.05), sgd(clipnorm=0.05)),
    ("a factor on both sides", Port(faster_bias(2.0)), Port(faster_bias(2.0))),
    ("frozen on both sides", Port(frozen=("fc1",)), Port(frozen=("fc1",))),
    ("accumulation", sgd(gradient_accumulation_steps=2), sgd(gradient_accumulation_steps=2)),
    ("an average beside the weights", sgd(use_ema=True), {}),
    ("a class that adds nothing", Port(own(lambda k, g, v, lr: (g, lr))), {}),
    ("a decay beside no momentum", Port(("SGD", {"weight_decay": 0.05}), 0.0),
     {"weightDecay": 0.05, "momentum": 0.0}),
    ("one penalty", l1(1e-3), l1(1e-3)),
    ("one bound", bare(short), bare(short)),
    ("an average, taken alike", *[sgd(use_ema=True, ema_overwrite_frequency=2)] * 2),
    ("a scaled loss", sgd(loss_scale_factor=128.0), {}),
    ("tf_keras' decay of 0", Port(("SGD", {"momentum": 0.9, "decay": 0.0}), legacy=True), {}),
    ("one metric", Port(loss="categorical_crossentropy", metrics=("binary_accuracy",)),
     Port(loss="categorical_crossentropy", metrics=("binary_accuracy",))),
]  # fmt: skip


@pytest.mark.parametrize(("port", "ref"), [pytest.param(p, r, id=name) for name, p, r in CLEAN])
def test_recipes_that_are_alike_have_no_finding(port: Port, ref: Any, folder: Any) -> None:
    report = report_of(Row("", "", port, ref), port, folder)
    assert report.verdict == "match", told(report)
    inside = [f for f in report.findings if "velocity holds the learning rate" in f.evidence]
    assert [f for f in report.findings if f.cause != "initializer"] == inside, told(report)
    assert not [p for p in report.probes if p.status == "masked"]


def active(size: float, **options: Any) -> Port:
    """A layer that adds to the loss for what it makes."""

    def held(k: Any, name: str) -> dict[str, Any]:
        return {"activity_regularizer": k.regularizers.L1L2(size, size)} if size and name == "fc1" else {}

    return Port(decay=0.0, held=held, **options)


def turned(k: Any, name: str) -> dict[str, Any]:
    return {"activity_regularizer": k.regularizers.OrthogonalRegularizer(0.1)} if name == "fc1" else {}


@pytest.mark.parametrize(
    ("port", "ref", "adding"),
    [
        pytest.param(active(1e-2), BARE, active(1e-2), id="in Keras"),
        pytest.param(active(0.0), active(1e-5), active(1e-5), id="in the reference, small"),
        pytest.param(active(1e-3, legacy=True), active(2e-3), active(2e-3, legacy=True), id="of another size"),
        pytest.param(bare(turned), bare(), bare(turned), id="another law"),
    ],
)
def test_what_a_layer_adds_to_the_loss_for_its_output_is_told(port: Port, ref: Any, adding: Port, folder: Any) -> None:
    report = report_of(Row("", "", port, ref), port, folder)
    first, said = report.first_divergence, told(report)
    assert first is not None, said
    assert (first.phase, first.keras_layer, first.tensor) == ("loss", "fc1", "activity"), said
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.keras_layer, f.phase) for f in found] == [("loss-kind", "fc1", "loss")], said
    assert found[0].confirmed, said
    assert found[0].fix_verified, said
    twin = report_of(Row("", "", adding, adding), adding, folder)
    assert twin.verdict == "match", told(twin)
    assert [p.status for p in twin.probes if p.tensor == "activity"] == ["match"]


def test_a_difference_that_the_steps_do_not_show_is_a_note_beside_one_that_they_do(folder: Any) -> None:
    port = sgd(learning_rate=0.011, clipvalue=100.0)
    report = report_of(Row("", "", port), port, folder)
    assert [(f.cause, f.severity) for f in report.findings if f.cause in (RATE, CLIPPING)] == [
        (RATE, "divergence"),
        (CLIPPING, "note"),
    ], told(report)


def test_what_the_optimizers_do_apart_from_the_batch_is_masked(folder: Any) -> None:
    port = sgd(clipvalue=10.0)
    report = report_of(Row("", "", port), port, folder)
    assert report.verdict == "match", told(report)
    assert {p.status for p in report.probes if p.phase == "update"} == {"masked"}
    note = next(f for f in report.findings if f.cause == CLIPPING)
    assert "gradients from 1e-8 to 100 times its own do" in note.evidence
    twin = report_of(Row("", "", sgd()), sgd(), folder)
    assert {p.status for p in twin.probes if p.phase == "update"} == {"match"}


def test_a_velocity_that_holds_the_rate_is_a_note(folder: Any) -> None:
    report = report_of(Row("", "", sgd()), sgd(), folder)
    note = next(f for f in report.findings if f.cause == MOMENTUM)
    assert (note.severity, report.verdict) == ("note", "match")
    assert "at the 4th step, a tenth of the rate, Keras moves" in note.evidence
    same = report_of(Row("", "", sgd(), sgd()), sgd(), folder)
    assert not same.findings, told(same)


def test_updates_go_on_from_a_checkpoint_with_its_velocities_and_its_schedule() -> None:
    """A factor on a rate is in the velocity too; a rate that decays has decayed for as long as the file says."""
    with np.load(RECORDED / "seed" / "batch.npz") as held:
        batch = {key: held[key] for key in ("x", "y")}
    checkpoint = RECORDED / "matconvnet" / "checkpoint_slim_nobn_epoch2.mat"
    decays = TRACES / "k2.1.6_tf1.8" / "slim_sgd_m9_decay.h5"
    report = check(ref=checkpoint, keras=decays, batch=batch)
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [f.cause for f in found] == ["conv-groups", AS_RATE, FACTOR], told(report)
    assert all(f.confirmed and f.fix_verified for f in found), told(report)
    report = check(ref=decays, keras=TRACES / "k2.15.0_tf2.15" / "slim_new_sgd_schedule.h5", batch=batch)
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.confirmed, f.fix_verified) for f in found] == [(RATE, True, True)], told(report)
    assert "starts at 0.00980392 in the reference and at 0.00999001 in Keras" in found[0].evidence
    twin = check(ref=decays, keras=decays, batch=batch)
    assert (twin.verdict, twin.findings) == ("match", ()), told(twin)


def test_a_loss_of_other_settings_is_told_with_them() -> None:
    import keras

    def built(gamma: float) -> Any:
        loss = keras.losses.CategoricalFocalCrossentropy(gamma=gamma)
        keras.utils.set_random_seed(0)
        return Port(decay=0.0, loss=loss).build()

    batch = {**BATCH, "y": np.eye(3, dtype=np.float32)[BATCH["y"]]}
    report = check(ref=built(2.0), keras=built(2.01), batch=batch, verify=False)
    found = [(f.cause, f.layer, f.confirmed) for f in report.findings if f.severity == "divergence"]
    assert found == [("loss-kind", "loss", True)], told(report)
    assert "is none in the reference (loss) and gamma 2.01 in Keras" in report.findings[0].evidence
    assert check(ref=built(2.01), keras=built(2.01), batch=batch).verdict == "match"


def test_two_numbers_that_are_wrong_are_both_told(folder: Any) -> None:
    port = sgd(learning_rate=0.02, momentum=0.5, nesterov=True)
    report = report_of(Row("", "", port), port, folder)
    found = [f for f in report.findings if f.severity == "divergence"]
    assert {f.cause for f in found} == {RATE, MOMENTUM, NESTEROV}, told(report)
    assert all(f.confirmed and f.fix_verified for f in found), told(report)


def test_a_summed_loss_is_no_other_rate(folder: Any) -> None:
    import keras

    port = Port(loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
    report = report_of(Row("", "", port), port, folder)
    assert [f.cause for f in report.findings if f.severity == "divergence"] == ["loss-reduction"], told(report)


def test_half_precision_is_no_fault_of_the_optimizer(folder: Any) -> None:
    for policy in ("mixed_float16", "mixed_bfloat16"):
        port = Port(policy=policy)
        report = report_of(Row("", "", port), port, folder)
        assert report.first_divergence.phase == "forward"
        assert [f.cause for f in report.findings if f.severity == "divergence"] == ["dtype-low-precision"], told(report)
        assert all(f.confirmed and f.fix_verified for f in report.findings if f.severity == "divergence"), told(report)


@pytest.mark.parametrize("side", ["Keras", "the reference"])
def test_a_layer_that_does_not_repeat_itself_is_told_on_either_side(side: str) -> None:
    import keras

    def built(noise: float) -> Any:
        inputs = keras.Input((1, 1, 6))
        x = keras.layers.Dense(5, name="fc1")(keras.layers.Flatten()(inputs))
        x = Restless(noise, name="middle")(x)
        model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="fc2")(x))
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        return model

    class Restless(keras.layers.Layer):
        def __init__(self, noise: float, **options: Any) -> None:
            super().__init__(**options)
            self.noise = noise

        def call(self, inputs: Any) -> Any:
            return inputs * (1 + self.noise * keras.random.normal((1, 5)))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "noise": self.noise}

    mine, theirs = (0.0, 1e-3) if side == "Keras" else (1e-3, 0.0)
    report = check(ref=built(mine), keras=built(theirs), batch=BATCH)
    assert report.verdict == "unverified", told(report)
    found = [(f.cause, f.phase, f.layer, f.confirmed) for f in report.findings if f.severity == "divergence"]
    assert found == [("nondeterminism", "forward", "middle", True)], told(report)
    still = check(ref=built(0.0), keras=built(0.0), batch=BATCH)
    assert still.verdict == "match", told(still)


# What changes no number here, and statistics --------------------------------------------------------------------------


def drawn(initializer: str, loss: str = "sparse_categorical_crossentropy", **options: Any) -> Any:
    """A model whose kernels are drawn by a law of Keras."""
    import keras

    keras.utils.set_random_seed(3)
    made = getattr(keras.initializers, initializer)(**options.pop("settings", {}))
    inputs = keras.Input((1, 1, 6))
    x = keras.layers.Dense(600, "sigmoid", name="fc1", kernel_initializer=made)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="fc2", kernel_initializer=made)(x))
    model.compile(keras.optimizers.SGD(0.01), loss, **options)
    return model


NORMAL = ("RandomNormal", {"stddev": 0.0125})
DRAWN = [
    pytest.param(NORMAL, ("GlorotUniform", {}), False, id="normal for Glorot"),
    pytest.param(("GlorotUniform", {}), NORMAL, False, id="Glorot for normal"),
    pytest.param(("RandomUniform", {}), ("RandomNormal", {"stddev": 0.1 / 12**0.5}), True, id="another shape"),
    pytest.param(NORMAL, ("RandomNormal", {"stddev": 0.015}), True, id="another size"),
]


@pytest.mark.parametrize(("ref", "port", "small"), DRAWN)
def test_a_law_that_weights_are_drawn_by_is_a_note(ref: Any, port: Any, small: bool) -> None:
    models = [drawn(name, settings=settings) for name, settings in (ref, port)]
    report = check(ref=models[0], keras=models[1], batch=BATCH)
    assert report.verdict == "match", told(report)
    notes = [(f.cause, f.severity, f.phase, f.layer) for f in report.findings]
    assert notes == [("initializer", "note", "weights", "fc1")], told(report)
    twin = check(ref=models[0], keras=drawn(ref[0], settings=ref[1]), batch=BATCH)
    assert not twin.findings, told(twin)


@pytest.mark.parametrize("momentum", [pytest.param(0.9, id="0.9"), pytest.param(0.9902, id="0.9902, small")])
def test_a_rate_of_averaging_is_told_at_its_layer(momentum: float) -> None:
    import keras

    def normalised(momentum: float, epsilon: float = 1e-3) -> Any:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((1, 1, 6))
        x = keras.layers.Dense(5, name="fc1")(keras.layers.Flatten()(inputs))
        x = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name="bn")(x)
        model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="fc2")(x))
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        return model

    report = check(ref=normalised(0.99), keras=normalised(momentum), batch=BATCH)
    first = report.first_divergence
    assert (first.phase, first.layer, first.step) == ("update", "bn", 1), told(report)
    found = [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in report.findings if f.severity == "divergence"]
    assert found == [("bn-momentum", "bn", True, True)], told(report)
    other = check(ref=normalised(momentum), keras=normalised(momentum, 2e-3), batch=BATCH, verify=False)
    assert "bn-momentum" not in {f.cause for f in other.findings}, told(other)
    twin = check(ref=normalised(momentum), keras=normalised(momentum), batch=BATCH)
    assert (twin.verdict, twin.findings) == ("match", ()), told(twin)


def test_what_is_counted_is_a_note_where_it_is_another_quantity(folder: Any) -> None:
    loss = "categorical_crossentropy"
    port = Port(loss=loss, metrics=("binary_accuracy",))
    report = report_of(Row("", "", port), port, folder)
    notes = [(f.severity, f.phase) for f in report.findings if f.cause == "metric"]
    assert (report.verdict, notes) == ("match", [("note", "loss")]), told(report)
    for metrics in (("categorical_accuracy",), ("accuracy",), ()):
        twin = report_of(Row("", "", Port(loss=loss, metrics=metrics)), Port(loss=loss, metrics=metrics), folder)
        assert "metric" not in {f.cause for f in twin.findings}, told(twin)


def test_every_cause_of_training_has_a_large_and_a_small_fault() -> None:
    for cause in (*FAMILIES["Optimizer"], "layer-frozen"):
        sizes = {row.small for row in ROWS if row.cause == cause}
        assert sizes == {True, False}, cause
    assert {row.values[2] for row in DRAWN} == {True, False}
