"""The nets that are timed: a MatConvNet file and the Keras model that is its right port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from parity.layers import Activation, BatchNorm, Conv, Dropout, Loss, Merge, Pool, Softmax
from parity.network import Layer, Network

RATE, MOMENTUM, DECAY = 0.001, 0.9, 0.0005


def batch(images: int) -> dict[str, np.ndarray]:
    """A batch for VGG-16."""
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((images, 224, 224, 3)).astype(np.float32), "y": rng.integers(0, 1000, images)}


def vgg(folder: Path, source: Path | None) -> Path:
    """VGG-16's layers at a quarter of the width, trainable: from `source`, or with He weights where it is absent."""
    target = folder / "vgg16q.mat"
    if source is not None and source.exists():
        held = scipy.io.loadmat(source, struct_as_record=False)
        layers = held["layers"].ravel() if "layers" in held else held["net"][0, 0].layers.ravel()
        kept = [_fields(cell) for cell in layers]
    else:
        kept = _random_vgg()
    if kept[-1]["type"] == "softmax":
        kept[-1] = {"type": "softmaxloss", "name": "loss"}
    cells = np.empty((1, len(kept)), dtype=object)
    for index, layer in enumerate(kept):
        cells[0, index] = layer
    recipe = {"learningRate": RATE, "momentum": MOMENTUM, "weightDecay": DECAY}
    scipy.io.savemat(target, {"layers": cells, "meta": {"inputSize": [224.0, 224.0, 3.0], "trainOpts": recipe}})
    return target


def dag(folder: Path, source: Path) -> Path:
    """A DagNN that ends in a softmax, with a softmax loss in its place: trainable."""
    held = scipy.io.loadmat(source)
    made = {name: value for name, value in held.items() if not name.startswith("__")}
    layers, variables = made["layers"].ravel(), made["vars"].ravel()
    for layer in layers:
        if layer["block"].dtype == object and layer["block"].ravel()[0] is None:
            layer["block"] = {}  # scipy reads a struct without fields so, and does not write it
    end, read = layers[-1], np.empty((1, 2), object)
    read[0, :] = [end["inputs"].ravel()[0], np.asarray(["label"])]
    end["type"], end["name"], end["inputs"] = np.asarray(["dagnn.Loss"]), np.asarray(["loss"]), read
    end["block"] = {"loss": "softmaxlog"}
    label = variables[-1].copy()
    label["name"] = np.asarray(["label"])
    made["vars"] = np.append(variables, label)[None]
    target = folder / "dag.mat"
    scipy.io.savemat(target, made)
    return target


def is_dag(source: Path | None) -> bool:
    """Whether a file holds a DagNN."""
    return source is not None and any(name == "vars" for name, *_ in scipy.io.whosmat(source))


def _fields(cell: Any) -> dict[str, Any]:
    struct = cell[0, 0] if isinstance(cell, np.ndarray) else cell
    made: dict[str, Any] = {}
    for name in struct._fieldnames:
        value = getattr(struct, name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            value = str(value.ravel()[0]) if value.size else ""
        if name not in ("learningRate", "weightDecay"):  # Keras has no rates per variable
            made[name] = value
    return made


def _random_vgg() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    kept: list[dict[str, Any]] = []

    def conv(name: str, size: int, depth: int, outputs: int, pad: int) -> None:
        filters = rng.standard_normal((size, size, depth, outputs)) * np.sqrt(2 / (size * size * depth))
        weights = np.empty((1, 2), dtype=object)
        weights[0, 0], weights[0, 1] = filters.astype(np.float32), np.zeros((1, outputs), np.float32)
        kept.append({"type": "conv", "name": name, "weights": weights, "pad": float(pad), "stride": 1.0})

    depth = 3
    for block, (count, width) in enumerate(((2, 16), (2, 32), (3, 64), (3, 128), (3, 128)), start=1):
        for index in range(1, count + 1):
            conv(f"conv{block}_{index}", 3, depth, width, 1)
            kept.append({"type": "relu", "name": f"relu{block}_{index}"})
            depth = width
        kept.append({"type": "pool", "name": f"pool{block}", "method": "max", "pool": [2.0, 2.0], "stride": 2.0})
    for name, size, outputs in (("6", 7, 512), ("7", 1, 512), ("8", 1, 1000)):
        conv(f"fc{name}", size, depth, outputs, 0)
        depth = outputs
        if name != "8":
            kept.append({"type": "relu", "name": f"relu{name}"})
            kept.append({"type": "dropout", "name": f"dropout{name}", "rate": 0.5})
    return [*kept, {"type": "softmaxloss", "name": "loss"}]


def twin(network: Network) -> Any:
    """The Keras model that does what this network does, compiled with its recipe."""
    import keras

    penalty = keras.regularizers.L2(DECAY / 2)
    made: dict[str, Any] = {n: keras.Input(s) for n, s in network.inputs.items() if n not in network.labels}
    starts, heads = list(made.values()), []
    for layer in network:
        if isinstance(layer.kind, Loss) and layer not in network.losses:
            continue  # what is only counted
        read = [made[name] for name in layer.inputs if name in made]
        made[layer.output] = _layer(layer, read, penalty)
        if not network.consumers.get(layer.output):
            heads.append(made[layer.output])
    model = keras.Model(starts, heads)
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=False),
    )
    return model


def _layer(layer: Layer, read: list[Any], penalty: Any) -> Any:
    """The Keras tensor that does what one layer does with these."""
    import keras

    kind, x = layer.kind, read[0]
    if isinstance(kind, Conv):
        top, bottom, left, right = kind.pad or (0, 0, 0, 0)
        if any((top, bottom, left, right)):
            x = keras.layers.ZeroPadding2D(((top, bottom), (left, right)))(x)
        return keras.layers.Conv2D(
            kind.filters, kind.size, strides=kind.stride, groups=kind.groups, use_bias=kind.bias,
            kernel_regularizer=penalty, bias_regularizer=penalty, name=layer.name,
        )(x)  # fmt: skip
    if isinstance(kind, Activation):
        return keras.layers.ReLU(negative_slope=kind.slope or 0.0, name=layer.name)(x)
    if isinstance(kind, Pool):
        maker = keras.layers.MaxPooling2D if kind.method == "max" else keras.layers.AveragePooling2D
        same = kind.method == "max" and any(kind.pad or ())
        return maker(kind.size, kind.stride, padding="same" if same else "valid", name=layer.name)(x)
    if isinstance(kind, Dropout):
        return keras.layers.Dropout(kind.rate, name=layer.name)(x)
    if isinstance(kind, BatchNorm):
        return keras.layers.BatchNormalization(
            epsilon=kind.epsilon, momentum=kind.momentum or 0.99, beta_regularizer=penalty, gamma_regularizer=penalty,
            name=layer.name,
        )(x)  # fmt: skip
    if isinstance(kind, Merge):
        return keras.layers.Add(name=layer.name)(read)
    if isinstance(kind, Loss | Softmax):
        return keras.layers.Softmax(name="softmax")(keras.layers.Flatten()(x))
    raise AssertionError(kind)
