"""MatConvNet nets made from scratch, their right Keras twins in several spellings, and planted faults.

This knows nothing of parity: it writes `.mat` files as MatConvNet does and builds Keras models as a user would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Layer = dict[str, Any]
RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.0005


def conv(name: str, rng: np.random.Generator, size: Sequence[int], scale: float | None = None, **fields: Any) -> Layer:
    """A convolution with He-scaled filters of (h, w, depth, outputs) and non-zero biases."""
    h, w, depth, outputs = size
    spread = scale or np.sqrt(2 / (h * w * depth))
    filters = (rng.standard_normal(size) * spread).astype(np.float32)
    bias = (rng.standard_normal((1, outputs)) * 0.1).astype(np.float32)
    base = {"type": "conv", "name": name, "stride": np.array([1.0, 1.0]), "pad": np.zeros(4)}
    return base | {"weights": [filters, bias]} | fields


def bnorm(name: str, rng: np.random.Generator, channels: int, rate: float = 0.05, epsilon: float = 1e-5) -> Layer:
    """A batch normalisation with moments as training leaves them: mean and deviation including epsilon."""
    gamma = (1 + 0.2 * rng.standard_normal((channels, 1))).astype(np.float32)
    beta = (0.2 * rng.standard_normal((channels, 1))).astype(np.float32)
    mean = 0.3 * rng.standard_normal((channels, 1))
    moments = np.concatenate([mean, np.sqrt(rng.uniform(0.5, 1.5, (channels, 1)) + epsilon)], axis=1).astype(np.float32)
    return {
        "type": "bnorm",
        "name": name,
        "weights": [gamma, beta, moments],
        "learningRate": np.array([1.0, 1.0, rate]),
        "epsilon": epsilon,
    }


def pool(name: str, method: str, size: int, stride: int, pad: Sequence[int] = (0, 0, 0, 0)) -> Layer:
    return {
        "type": "pool",
        "name": name,
        "method": method,
        "pool": np.array([size, size], float),
        "stride": np.array([stride, stride], float),
        "pad": np.array(pad, float),
    }


def relu(name: str, leak: float = 0.0) -> Layer:
    return {"type": "relu", "name": name, "leak": float(leak)}


def plain(seed: int = 0) -> list[Layer]:
    """Convolutions (grouped, strided, padded on unlike sides), leaky relu, both poolings, a fully connected end."""
    rng = np.random.default_rng(seed)
    return [
        conv("conv1", rng, (3, 3, 3, 6), pad=np.array([1.0, 1, 1, 1])),
        relu("relu1", 0.1),
        pool("pool1", "max", 2, 2),
        conv("conv2", rng, (3, 3, 3, 8), pad=np.array([2.0, 0, 2, 0])),
        relu("relu2"),
        pool("pool2", "avg", 3, 2, (0, 1, 0, 1)),
        conv("fc", rng, (4, 4, 8, 12)),
        relu("relu3"),
        conv("classifier", rng, (1, 1, 12, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def normalised(seed: int = 0) -> list[Layer]:
    """Batch normalisation behind strided convolutions, sigmoid, dropout."""
    rng = np.random.default_rng(seed)
    return [
        conv("conv1", rng, (3, 3, 3, 6), stride=np.array([2.0, 2])),
        bnorm("bn1", rng, 6),
        relu("relu1"),
        conv("conv2", rng, (3, 3, 6, 8), pad=np.array([1.0, 1, 1, 1])),
        bnorm("bn2", rng, 8, 0.1),
        relu("relu2"),
        pool("pool2", "max", 3, 2),
        {"type": "dropout", "name": "drop", "rate": 0.3},
        conv("fc", rng, (3, 3, 8, 10)),
        {"type": "sigmoid", "name": "sig"},
        conv("classifier", rng, (1, 1, 10, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def save(path: Path, layers: Iterable[Layer], size: Sequence[int] = (16, 16, 3), **options: Any) -> Path:
    """Write a SimpleNN as MATLAB's `save -struct` does."""
    listed = [dict(layer) for layer in layers]
    cells = np.empty((1, len(listed)), dtype=object)
    for index, layer in enumerate(listed):
        if "weights" in layer:
            weights = np.empty((1, len(layer["weights"])), dtype=object)
            for j, value in enumerate(layer["weights"]):
                weights[0, j] = value
            layer["weights"] = weights
        cells[0, index] = layer
    recipe = {"learningRate": RATE, "momentum": MOMENTUM, "weightDecay": DECAY, "batchSize": 8.0, "numEpochs": 3.0}
    meta = {"inputSize": np.array(size, float), "trainOpts": recipe | options}
    scipy.io.savemat(path, {"layers": cells, "meta": meta}, do_compression=True)
    return path


def batch(seed: int = 0, size: Sequence[int] = (16, 16, 3), classes: int = 4, n: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed + 99)
    return {"x": rng.standard_normal((n, *size)).astype(np.float32), "y": rng.integers(0, classes, n)}


# ---------------------------------------------------------------------------------------------------------------- Keras


def twin(
    layers: Sequence[Layer],
    *,
    size: Sequence[int] = (16, 16, 3),
    edits: Mapping[str, Mapping[str, Any]] | None = None,
    drop: Sequence[str] = (),
    after: Mapping[str, Callable[[Any], Any]] | None = None,
    swap: Mapping[str, Callable[..., Any]] | None = None,
    dense: bool = True,
    fused: bool = False,
    nested: bool = False,
    functional: bool = True,
    logits: bool = False,
    decay: float | None = DECAY,
    optimizer: Any = None,
    loss: Any = "default",
    weights: bool = False,
    module: Any = None,
) -> Any:
    """The Keras model that a careful user writes for these MatConvNet layers.

    Args:
        layers: as `save` takes them.
        size: (h, w, c) of the input.
        edits: layer name → fields to change in Keras (`rate`, `leak`, `epsilon`, `momentum`, `groups`, ...).
        drop: layers to leave out.
        after: layer name → function that is given the Keras tensor behind it and returns another.
        swap: layer name → maker of the Keras layer to use instead, called with the usual arguments.
        dense: fully connected layers as Flatten and Dense (else as convolutions).
        fused: activations as arguments of the layer before, where there is one.
        nested: the first half as a submodel.
        functional: False builds a Sequential.
        logits: end with logits and from_logits=True.
        decay: the reference's weight decay as L2(decay/2) on every parameter; None for none.
        optimizer: instead of SGD(0.01, momentum=0.9).
        loss: instead of the sparse categorical cross-entropy; None leaves the model uncompiled.
        weights: whether to load the reference's weights.
        module: keras or tf_keras.
    """
    import keras

    k = module or keras
    stack = _Stack(k, layers, size, edits or {}, drop, swap or {}, dense, fused, logits, decay)
    model = _assembled(k, stack, size, after or {}, nested, functional)
    if loss is not None:
        if isinstance(loss, str) and loss == "default":
            loss = k.losses.SparseCategoricalCrossentropy(from_logits=logits)
        model.compile(optimizer=optimizer or k.optimizers.SGD(RATE, momentum=MOMENTUM), loss=loss)
    if weights:
        load(model, layers, stack)
    return model


class _Stack:
    """The Keras layers of each MatConvNet layer, in order."""

    def __init__(self, k, layers, size, edits, drop, swap, dense, fused, logits, decay):
        self.k, self.edits, self.swap, self.dense, self.logits = k, edits, swap, dense, logits
        self.penalty = (lambda: k.regularizers.L2(decay / 2)) if decay else (lambda: None)
        self.made: list[tuple[str, list[Any]]] = []
        extent, depth, flat = list(size[:2]), size[2], False
        kept = [layer for layer in layers if layer["name"] not in drop]
        skip: set[str] = set()
        for at, layer in enumerate(kept):
            if layer["name"] in skip:
                continue
            follower = kept[at + 1] if at + 1 < len(kept) else None
            activation = None
            fits = fused and layer["type"] == "conv" and follower and follower["type"] in ("relu", "sigmoid")
            if fits and not self._field(follower, "leak", 0.0):
                activation = follower["type"]
                skip.add(follower["name"])
            built, extent, depth, flat = self._layer(layer, extent, depth, flat, activation)
            self.made.append((layer["name"], built))
        if not logits:
            self.made.append(("softmax", [k.layers.Softmax(name="softmax")]))

    def _field(self, layer: Layer, name: str, default: Any) -> Any:
        return self.edits.get(layer["name"], {}).get(name, layer.get(name, default))

    def _layer(self, layer: Layer, extent, depth, flat, activation):
        k, name, kind = self.k, layer["name"], layer["type"]
        make = self.swap.get(name)
        if kind == "conv":
            return self._conv(layer, extent, depth, flat, activation, make)
        if kind == "bnorm":
            options = {
                "epsilon": self._field(layer, "epsilon", 1e-5),
                "momentum": self._field(layer, "momentum", 1 - layer["learningRate"][2]),
                "gamma_regularizer": self.penalty(),
                "beta_regularizer": self.penalty(),
                "name": name,
            }
            return [(make or k.layers.BatchNormalization)(**options)], extent, depth, flat
        if kind == "relu":
            leak = self._field(layer, "leak", 0.0)
            if make:
                return [make(name=name)], extent, depth, flat
            if leak:
                return [k.layers.LeakyReLU(leak, name=name)], extent, depth, flat
            return [k.layers.ReLU(name=name)], extent, depth, flat
        if kind == "sigmoid":
            return [(make or k.layers.Activation)("sigmoid", name=name)], extent, depth, flat
        if kind == "dropout":
            return [(make or k.layers.Dropout)(self._field(layer, "rate", 0.5), name=name)], extent, depth, flat
        if kind == "pool":
            return self._pool(layer, extent, depth, flat, make)
        if kind in ("softmaxloss", "loss"):
            return [], extent, depth, flat
        raise AssertionError(kind)

    def _conv(self, layer, extent, depth, flat, activation, make):
        k, name = self.k, layer["name"]
        h, w, seen, outputs = layer["weights"][0].shape + (1,) * (4 - layer["weights"][0].ndim)
        outputs = self._field(layer, "filters", outputs)
        pad = [int(p) for p in self._field(layer, "pad", np.zeros(4))]
        stride = [int(s) for s in self._field(layer, "stride", np.ones(2))]
        groups = self._field(layer, "groups", depth // seen)
        common = {"kernel_regularizer": self.penalty(), "activation": activation, "name": name}
        if self._field(layer, "bias", True):
            common["bias_regularizer"] = self.penalty()
        else:
            common["use_bias"] = False
        if self.dense and name in ("fc", "classifier"):
            first = [] if flat else [k.layers.Flatten(name=f"{name}_flatten")]
            return [*first, (make or k.layers.Dense)(outputs, **common)], [1, 1], outputs, True
        built = []
        if any(pad):
            built.append(k.layers.ZeroPadding2D(((pad[0], pad[1]), (pad[2], pad[3])), name=f"{name}_pad"))
        built.append((make or k.layers.Conv2D)(outputs, (h, w), strides=stride, groups=groups, **common))
        after = [
            (extent[0] + pad[0] + pad[1] - h) // stride[0] + 1,
            (extent[1] + pad[2] + pad[3] - w) // stride[1] + 1,
        ]
        return built, after, outputs, False

    def _pool(self, layer, extent, depth, flat, make):
        k, name = self.k, layer["name"]
        method = self._field(layer, "method", "max")
        size = int(np.ravel(self._field(layer, "pool", 1))[0])
        stride = int(np.ravel(self._field(layer, "stride", 1))[0])
        pad = [int(p) for p in self._field(layer, "pad", np.zeros(4))]
        maker = make or (k.layers.MaxPooling2D if method == "max" else k.layers.AveragePooling2D)
        same = "same" if any(pad) else "valid"
        after = [(e + pad[2 * i] + pad[2 * i + 1] - size) // stride + 1 for i, e in enumerate(extent)]
        return [maker(size, strides=stride, padding=same, name=name)], after, depth, flat


def _assembled(k, stack: _Stack, size, after, nested, functional):
    if not functional:
        assert not after
        return k.Sequential([k.Input(tuple(size)), *(layer for _, built in stack.made for layer in built)])
    start = x = k.Input(tuple(size))
    half = len(stack.made) // 2 if nested else 0
    if nested:
        inside = y = k.Input(tuple(size))
        for name, built in stack.made[:half]:
            for layer in built:
                y = layer(y)
            y = after[name](y) if name in after else y
        x = k.Model(inside, y, name="front")(x)
    for name, built in stack.made[half:]:
        for layer in built:
            x = layer(x)
        x = after[name](x) if name in after else x
    return k.Model(start, x)


def load(model: Any, layers: Sequence[Layer], stack: Any = None) -> None:
    """The reference's weights into the Keras model, by layer name."""
    found = {layer.name: layer for layer in _leaves(model)}
    for layer in layers:
        if layer["name"] not in found or "weights" not in layer:
            continue
        keras_layer = found[layer["name"]]
        values = [np.asarray(v) for v in layer["weights"]]
        if layer["type"] == "bnorm":
            moments = values[2]
            epsilon = layer["epsilon"]
            keras_layer.set_weights([values[0].ravel(), values[1].ravel(), moments[:, 0], moments[:, 1] ** 2 - epsilon])
            continue
        held = keras_layer.get_weights()
        keras_layer.set_weights([v.reshape(h.shape) for v, h in zip(values, held, strict=False)])


def _leaves(model: Any) -> Iterable[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer


def random_net(seed: int, depth: int | None = None) -> tuple[list[Layer], tuple[int, int, int]]:
    """A net that nobody thought of: unlike strides and pads, groups, activations, poolings; and its input's size."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(12, 25)), int(rng.integers(12, 25)), int(rng.integers(1, 5)))
    layers: list[Layer] = []
    extent, channels = list(size[:2]), size[2]
    for at in range(depth or int(rng.integers(2, 9))):
        window = [int(w) for w in rng.integers(1, 4, 2)]
        stride = [int(s) for s in rng.integers(1, 3, 2)] if min(extent) > 8 else [1, 1]
        pad = [int(p) for w in window for p in rng.integers(0, w, 2)]
        after = [(extent[i] + pad[2 * i] + pad[2 * i + 1] - window[i]) // stride[i] + 1 for i in (0, 1)]
        if min(after) < 3:
            window, stride, pad, after = [3, 3], [1, 1], [1, 1, 1, 1], extent
        outputs = int(rng.integers(2, 7)) * 2
        groups = 2 if channels % 2 == 0 and rng.random() < 0.4 else 1
        shape = (*window, channels // groups, outputs)
        layers.append(conv(f"conv{at}", rng, shape, pad=np.array(pad, float), stride=np.array(stride, float)))
        extent, channels = after, outputs
        if rng.random() < 0.4:
            layers.append(bnorm(f"bn{at}", rng, channels, float(rng.choice([0.01, 0.05, 0.1, 1.0]))))
        choice = rng.random()
        if choice < 0.7:
            layers.append(relu(f"relu{at}", float(rng.choice([0, 0, 0.01, 0.2]))))
        elif choice < 0.85:
            layers.append({"type": "sigmoid", "name": f"sig{at}"})
        if rng.random() < 0.4 and min(extent) > 5:
            method, width, step = str(rng.choice(["max", "avg"])), int(rng.integers(2, 4)), int(rng.integers(1, 3))
            layers.append(pool(f"pool{at}", method, width, step))
            extent = [(e - width) // step + 1 for e in extent]
        if rng.random() < 0.2:
            layers.append({"type": "dropout", "name": f"drop{at}", "rate": float(rng.choice([0.1, 0.5]))})
    layers.append(conv("fc", rng, (*extent, channels, 8)))
    layers.append(relu("relu_fc"))
    layers.append(conv("classifier", rng, (1, 1, 8, 4)))
    return [*layers, {"type": "softmaxloss", "name": "loss"}], size
