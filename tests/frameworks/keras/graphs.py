"""One small model of every kind of graph that people build, in either Keras: name → builder.

A builder takes a Keras module and gives `Example`s. Every one is compiled; the inputs are drawn from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RNG = np.random.default_rng(11)
BATCH = 4


@dataclass
class Example:
    """A model, what it is fed, and what is known about it.

    Attributes:
        inputs: name → array.
        labels: array for all outputs, or one per output.
        names: layers that the network must have, in order (a part of them).
        single: layers that have no float64 twin.
        drawn: it draws random numbers, so a second run differs.
        rough: it computes below float32.
        weights: sample weights.
    """

    model: object
    inputs: dict
    labels: object
    names: tuple = ()
    single: tuple = ()
    drawn: bool = False
    rough: bool = False
    weights: object = None


def backend(keras):
    return keras.config.backend() if keras.__name__ == "keras" else "tensorflow"


def images(*shape):
    return RNG.normal(size=(BATCH, *(shape or (6, 6, 3)))).astype(np.float32)


def classes(count=3):
    return RNG.integers(0, count, BATCH)


def logits(keras, **options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


def done(keras, model, x, y=None, optimizer=None, loss=None, **rest):
    """The example of a model of one input and one output of three classes."""
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss or logits(keras))
    name = getattr(model, "input_names", None) or ["x"]
    return Example(model, {name[0]: x}, classes() if y is None else y, **rest)


def head(keras, t):
    layers = keras.layers
    return layers.Dense(3, name="fc")(layers.Flatten(name="flat")(t))


def plain(keras, *stack, shape=(6, 6, 3), **rest):
    """A functional chain of layers with a classifier behind it."""
    x = t = keras.Input(shape, name="x")
    for layer in stack:
        t = layer(t)
    return done(keras, keras.Model(x, head(keras, t)), images(*shape), **rest)


def nested(keras):
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Conv2D(4, 3, activation="relu", name="c"), layers.BatchNormalization(name="b")], name="inner"
    )
    a = keras.Input((6, 6, 3))
    middle = keras.Model(a, layers.LeakyReLU(name="leaky")(inner(a)), name="middle")
    x = keras.Input((6, 6, 3), name="x")
    model = keras.Model(x, head(keras, middle(x)))
    return done(keras, model, images(), names=("middle/inner/c", "middle/inner/b", "middle/leaky", "fc"))


def submodel_in_sequential(keras):
    layers = keras.layers
    a = keras.Input((6, 6, 3))
    body = keras.Model(a, layers.Add(name="sum")([a, layers.Conv2D(3, 3, padding="same", name="c")(a)]), name="body")
    model = keras.Sequential([keras.Input((6, 6, 3)), body, layers.Flatten(name="flat"), layers.Dense(3, name="fc")])
    return done(keras, model, images(), names=("body/c", "body/sum", "flat", "fc"))


def shared(keras):
    layers = keras.layers
    a = keras.Input((6, 6, 3))
    sub = keras.Model(a, layers.Conv2D(3, 3, padding="same", activation="tanh", name="c")(a), name="sub")
    twice = layers.Dense(3, name="twice")
    x = keras.Input((6, 6, 3), name="x")
    t = layers.Concatenate(name="cat")([sub(x), sub(sub(x))])
    t = twice(layers.Dense(3, name="once")(t))
    model = keras.Model(x, head(keras, twice(t)))
    return done(keras, model, images(), names=("sub/c", "sub/c@2", "sub/c@3", "twice", "twice@2"))


def inputs_and_outputs(keras):
    layers = keras.layers
    a, b = keras.Input((6, 6, 3), name="left"), keras.Input((5,), name="right")
    t = layers.Concatenate(name="cat")([layers.Flatten(name="flat")(a), layers.Dense(4, name="d")(b)])
    first = layers.Dense(3, activation="softmax", name="first")(t)
    second = layers.Dense(2, name="second")(t)
    model = keras.Model([a, b], [first, second])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"], loss_weights=[1.0, 0.25])
    inputs = {"left": images(), "right": images(5)}
    return Example(model, inputs, [classes(), images(2)], ("flat", "d", "cat", "first", "second"))


def dicts(keras):
    layers = keras.layers
    given = {"left": keras.Input((4,), name="left"), "right": keras.Input((5,), name="right")}
    t = layers.Concatenate(name="cat")([given["right"], given["left"]])
    made = {"b": layers.Dense(2, name="b")(t), "a": layers.Dense(3, name="a")(t)}
    model = keras.Model(given, made)
    model.compile("sgd", {"a": logits(keras), "b": "mae"}, loss_weights={"a": 2.0, "b": 0.5})
    inputs = {"left": images(4), "right": images(5)}
    return Example(model, inputs, {"a": classes(), "b": images(2)}, ("cat",))


def residual(keras):
    layers = keras.layers
    x = keras.Input((6, 6, 3), name="x")
    a = layers.Conv2D(3, 3, padding="same", name="c1")(x)
    b = layers.ReLU(name="r1")(layers.Add(name="add")([x, a]))
    c = layers.Concatenate(name="cat")([b, a, x])
    d = layers.Multiply(name="mul")([c, layers.Conv2D(9, 1, activation="sigmoid", name="gate")(c)])
    e = layers.Maximum(name="max")([d, c])
    return done(keras, keras.Model(x, head(keras, layers.Subtract(name="sub")([e, c]))), images())


def subclassed(keras):
    layers = keras.layers

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
            self.norm = layers.BatchNormalization(name="norm")
            self.block = keras.Sequential([layers.Dense(4, name="d"), layers.ReLU(name="r")], name="block")
            self.flat, self.fc = layers.Flatten(name="flat"), layers.Dense(3, name="fc")

        def call(self, x, training=False):
            x = self.norm(self.conv(x), training=training)
            return self.fc(self.flat(self.block(x)))

    return done(keras, Mine(), images(), names=("conv", "norm", "block/d", "block/r", "flat", "fc"))


def custom(keras):
    class Scale(keras.layers.Layer):
        def __init__(self, factor=2.0, **rest):
            super().__init__(**rest)
            self.factor = factor

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

        def call(self, x):
            return x * self.w * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    class Forgetful(Scale):
        def get_config(self):
            return {k: v for k, v in super().get_config().items() if k != "factor"}

    return plain(keras, Scale(3.0, name="scale"), Forgetful(3.0, name="forgetful"), single=("forgetful",))


def wrappers(keras):
    layers = keras.layers
    return plain(
        keras,
        layers.TimeDistributed(layers.Dense(4, activation="relu"), name="each"),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both"),
        layers.Bidirectional(layers.GRU(3), merge_mode="sum", name="sum"),
        shape=(5, 4),
    )


def recurrent(keras):
    layers = keras.layers
    x = keras.Input((5, 4), name="x")
    sequence, h, c = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(x)
    t = layers.GRU(3, name="gru")(sequence, initial_state=h)
    t = layers.Concatenate(name="cat")([t, c, layers.SimpleRNN(2, name="rnn")(sequence)])
    t = layers.Concatenate(name="cat2")([t, layers.RNN(layers.GRUCell(2), name="cell")(x)])
    return done(keras, keras.Model(x, head(keras, t)), images(5, 4), names=("lstm", "gru", "rnn", "cat"))


def one_dimension(keras):
    layers = keras.layers
    return plain(
        keras,
        layers.ZeroPadding1D(1, name="pad"),
        layers.Conv1D(4, 3, activation="relu", name="conv"),
        layers.MaxPooling1D(2, name="pool"),
        layers.UpSampling1D(2, name="up"),
        layers.Cropping1D(1, name="crop"),
        layers.Conv1DTranspose(3, 2, name="turn"),
        layers.SeparableConv1D(3, 2, name="sep"),
        layers.GlobalAveragePooling1D(name="gap"),
        shape=(12, 3),
    )


def three_dimensions(keras):
    layers = keras.layers
    single = ("pool",) if backend(keras) == "tensorflow" else ()  # it has no such kernel for float64 on a CPU
    return plain(
        keras,
        layers.Conv3D(4, 2, activation="relu", name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.AveragePooling3D(2, name="pool"),
        layers.GlobalMaxPooling3D(name="gap"),
        shape=(5, 5, 5, 2),
        single=single,
    )


def convolutions(keras):
    layers = keras.layers
    return plain(
        keras,
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep"),
        layers.SeparableConv2D(4, 3, activation="elu", name="sep"),
        layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="turn"),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="wide"),
        shape=(7, 7, 3),
    )


def embedding(keras):
    layers = keras.layers
    x = keras.Input((7,), dtype="int32", name="words")
    t = layers.Conv1D(3, 3, name="conv")(layers.Embedding(11, 4, name="table")(x))
    model = keras.Model(x, head(keras, t))
    example = done(keras, model, RNG.integers(0, 11, (BATCH, 7)), names=("table", "conv"))
    example.inputs = {"words": next(iter(example.inputs.values()))}
    return example


def attention(keras):
    layers = keras.layers
    x, y = keras.Input((5, 4), name="x"), keras.Input((3, 4), name="y")
    own = layers.MultiHeadAttention(2, 3, name="own")(x, x)
    other = layers.MultiHeadAttention(2, 3, name="other")(own, y, return_attention_scores=False)
    dot = layers.Attention(name="dot")([other, y])
    model = keras.Model([x, y], head(keras, layers.Add(name="sum")([dot, own])))
    model.compile("sgd", logits(keras))
    return Example(model, {"x": images(5, 4), "y": images(3, 4)}, classes(), ("own", "other", "dot", "sum"))


def normalisations(keras):
    layers = keras.layers
    norms = [
        layers.BatchNormalization(name="bn", scale=False),
        layers.LayerNormalization(name="ln"),
        layers.GroupNormalization(3, name="gn"),
        layers.UnitNormalization(name="un"),
        layers.BatchNormalization(axis=1, name="rows"),
    ]
    if keras.__name__ == "keras":
        norms.append(layers.RMSNormalization(name="rms"))
    return plain(keras, *norms)


def preprocessing(keras):
    layers = keras.layers
    known = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], name="norm")
    return plain(
        keras,
        layers.Rescaling(2.0, offset=0.5, name="rescale"),
        known,
        layers.Resizing(4, 4, name="resize"),
        layers.CenterCrop(3, 3, name="crop"),
    )


def masking(keras):
    layers = keras.layers
    x = keras.Input((5, 4), name="x")
    t = layers.Masking(name="masking")(x)
    t = layers.LSTM(3, return_sequences=True, name="lstm")(t)
    t = layers.GlobalAveragePooling1D(name="gap")(t)
    given = images(5, 4)
    given[:, 3:] = 0
    given[0, 1:] = 0
    return done(keras, keras.Model(x, layers.Dense(3, name="fc")(t)), given, names=("masking", "lstm", "gap"))


def mask_zero(keras):
    layers = keras.layers
    x = keras.Input((6,), dtype="int32", name="words")
    t = layers.Embedding(9, 4, mask_zero=True, name="table")(x)
    t = layers.GRU(3, return_sequences=True, name="gru")(t)
    model = keras.Model(x, layers.Dense(3, name="fc")(t))
    words = RNG.integers(1, 9, (BATCH, 6))
    words[:, 4:] = 0
    words[1, 2:] = 0
    model.compile(keras.optimizers.SGD(0.05), "mse")  # the loss reads the mask too
    return Example(model, {"words": words}, images(6, 3), ("table", "gru", "fc"))


def regularized(keras):
    layers, regularizers, constraints = keras.layers, keras.regularizers, keras.constraints
    return plain(
        keras,
        layers.Conv2D(
            4, 3, kernel_regularizer=regularizers.L2(0.01), bias_regularizer=regularizers.L1(0.02), name="c1"
        ),
        layers.Conv2D(
            4, 3, activity_regularizer=regularizers.L2(0.1), kernel_constraint=constraints.MaxNorm(0.3), name="c2"
        ),
        layers.ActivityRegularization(l1=0.01, name="act"),
    )


def mixed(dtype, wrapped):
    def build(keras):
        layers = keras.layers
        x = keras.Input((6, 6, 3), name="x")
        t = layers.Conv2D(4, 3, activation="relu", name="conv", dtype=dtype)(x)
        t = layers.BatchNormalization(name="bn", dtype=dtype)(t)
        t = layers.Dense(3, name="fc", dtype="float32")(layers.Flatten(name="flat", dtype=dtype)(t))
        optimizer = keras.optimizers.SGD(0.05)
        if wrapped:
            if keras.__name__ == "keras":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            else:
                optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        return done(keras, keras.Model(x, t), images(), optimizer=optimizer, rough=True)

    return build


def frozen(keras):
    layers = keras.layers
    a = keras.Input((6, 6, 3))
    base = keras.Model(a, layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="c")(a)), name="base")
    base.trainable = False
    x = keras.Input((6, 6, 3), name="x")
    return done(keras, keras.Model(x, head(keras, base(x))), images(), names=("base/c", "base/bn"))


def training_at_build(keras):
    layers = keras.layers
    a = keras.Input((6, 6, 3))
    base = keras.Model(a, layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="c")(a)), name="base")
    x = keras.Input((6, 6, 3), name="x")
    t = layers.Dropout(0.5, name="drop")(base(x, training=False), training=True)
    return done(keras, keras.Model(x, head(keras, t)), images(), drawn=True)


def operations(keras):
    layers = keras.layers
    x = keras.Input((6, 6, 4), name="x")
    if keras.__name__ == "keras":
        ops = keras.ops
        a, b = ops.split(x, 2, axis=-1)
        t = ops.relu(a) * b + ops.mean(x, axis=-1, keepdims=True)
        t = ops.concatenate([t, x[..., 1:3] - 0.5], axis=-1)
    else:
        import tensorflow as tf

        a, b = tf.split(x, 2, axis=-1)
        t = tf.nn.relu(a) * b + tf.reduce_mean(x, axis=-1, keepdims=True)
        t = tf.concat([t, x[..., 1:3] - 0.5], axis=-1)
    t = layers.Conv2D(3, 3, name="conv")(t)
    return done(keras, keras.Model(x, head(keras, t)), images(6, 6, 4))


def activations(keras):
    layers = keras.layers
    return plain(
        keras,
        layers.Dense(4, activation=layers.LeakyReLU(), name="inside"),
        layers.PReLU(name="prelu"),
        layers.ELU(name="elu"),
        layers.Activation("gelu", name="gelu"),
        layers.Dense(4, activation="softmax", name="soft"),
        layers.Softmax(name="again"),
        layers.Reshape((36, 4), name="reshape"),
        layers.Permute((2, 1), name="permute"),
        layers.Dense(5, activation="linear", name="line"),
    )


def random(keras):
    layers = keras.layers
    return plain(
        keras,
        layers.Dropout(0.4, name="drop"),
        layers.SpatialDropout2D(0.4, name="spatial"),
        layers.Dropout(0.3, seed=5, name="seeded"),
        layers.GaussianNoise(0.1, name="noise"),
        drawn=True,
    )


def weighted(keras):
    layers = keras.layers
    x = keras.Input((6, 6, 3), name="x")
    soft = layers.Dense(3, activation="softmax", name="fc")(layers.Flatten(name="flat")(x))
    example = done(keras, keras.Model(x, soft), images(), loss="sparse_categorical_crossentropy")
    example.weights = np.array([0.5, 2.0, 0.0, 1.5], np.float32)
    return example


GRAPHS = {
    "nested": nested,
    "submodel-in-sequential": submodel_in_sequential,
    "shared": shared,
    "inputs-and-outputs": inputs_and_outputs,
    "dicts": dicts,
    "residual": residual,
    "subclassed": subclassed,
    "custom": custom,
    "wrappers": wrappers,
    "recurrent": recurrent,
    "one-dimension": one_dimension,
    "three-dimensions": three_dimensions,
    "convolutions": convolutions,
    "embedding": embedding,
    "attention": attention,
    "normalisations": normalisations,
    "preprocessing": preprocessing,
    "masking": masking,
    "mask-zero": mask_zero,
    "regularized": regularized,
    "mixed-float16": mixed("mixed_float16", False),
    "mixed-bfloat16": mixed("mixed_bfloat16", False),
    "loss-scale": mixed("mixed_float16", True),
    "frozen": frozen,
    "training-at-build": training_at_build,
    "operations": operations,
    "activations": activations,
    "random": random,
    "weighted": weighted,
}
