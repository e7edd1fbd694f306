"""DagNN nets made from scratch, their right Keras twins, and places to plant faults in them.

This knows nothing of parity: it writes `.mat` files as MatConvNet's `saveobj` does and builds Keras models as a user
would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RATE, MOMENTUM, DECAY = 0.01, 0.9, 0.0005

Row = dict[str, Any]


class Dag:
    """A DagNN under construction: blocks between variables, with parameters by name.

    Args:
        seed: of the parameters.
        inputs: data input → (h, w, c).
        labels: label inputs.

    Attributes:
        labelled: (h, w) where each pixel has a label.
    """

    def __init__(self, seed: int, inputs: Mapping[str, Sequence[int]], labels: Sequence[str] = ("label",)) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs = {name: tuple(size) for name, size in inputs.items()}
        self.labels = tuple(labels)
        self.labelled: tuple[int, ...] = ()
        self.rows: list[Row] = []
        self.params: dict[str, dict[str, Any]] = {}

    def add(self, name: str, block: str, inputs: Any, params: Sequence[str] = (), out: str = "", **fields: Any) -> str:
        """A block; gives the name of its variable (`name` with an underscore behind it, or `out`)."""
        read = [inputs] if isinstance(inputs, str) else list(inputs)
        output = out or f"{name}_"
        self.rows.append(
            {
                "name": name,
                "type": f"dagnn.{block}",
                "inputs": read,
                "outputs": [output],
                "params": list(params),
                "block": fields,
            }
        )
        return output

    def param(self, name: str, value: np.ndarray, rate: float = 1.0, decay: float = 1.0) -> str:
        """A parameter, single."""
        self.params.setdefault(
            name, {"name": name, "value": np.asarray(value, np.float32), "learningRate": rate, "weightDecay": decay}
        )
        return name

    def conv(
        self,
        name: str,
        x: str,
        size: Sequence[int],
        *,
        pad: Sequence[int] = (0, 0, 0, 0),
        stride: int = 1,
        dilate: int = 1,
        bias: bool = True,
        share: str = "",
        out: str = "",
    ) -> str:
        """A convolution with He-scaled filters of (h, w, depth, outputs); `share` names another's parameters."""
        of = share or name
        h, w, depth, outputs = size
        spread = np.sqrt(2 / (h * w * depth))
        params = [self.param(f"{of}f", self.rng.standard_normal(size) * spread)]
        if bias:
            params.append(self.param(f"{of}b", 0.1 * self.rng.standard_normal((outputs, 1))))
        return self.add(
            name,
            "Conv",
            x,
            params,
            out,
            size=np.array(size, float),
            hasBias=bias,
            pad=np.array(pad, float),
            stride=np.array([stride, stride], float),
            dilate=np.array([dilate, dilate], float),
            opts=cell(["cuDNN"]),
        )

    def convt(self, name: str, x: str, size: Sequence[int], *, upsample: int, crop: Sequence[int]) -> str:
        """A transposed convolution with filters of (h, w, outputs, inputs) and biases."""
        h, w, outputs, channels = size
        spread = np.sqrt(2 / (h * w * channels))
        params = [
            self.param(f"{name}f", self.rng.standard_normal(size) * spread),
            self.param(f"{name}b", 0.1 * self.rng.standard_normal((outputs, 1))),
        ]
        fields = {"upsample": np.array([upsample, upsample], float), "crop": np.array(crop, float), "numGroups": 1.0}
        return self.add(name, "ConvTranspose", x, params, size=np.array(size, float), hasBias=True, **fields)

    def bnorm(self, name: str, x: str, channels: int, rate: float = 0.1, epsilon: float = 1e-5) -> str:
        """A batch normalisation with moments as training leaves them."""
        rng = self.rng
        moments = np.stack(
            [0.3 * rng.standard_normal(channels), np.sqrt(rng.uniform(0.5, 1.5, channels) + epsilon)], axis=1
        )
        params = [
            self.param(f"{name}m", 1 + 0.2 * rng.standard_normal((channels, 1))),
            self.param(f"{name}b", 0.2 * rng.standard_normal((channels, 1))),
            self.param(f"{name}x", moments, rate),
        ]
        return self.add(name, "BatchNorm", x, params, numChannels=float(channels), epsilon=epsilon)

    def scale(self, name: str, x: str, channels: int) -> str:
        """A multiplier and an offset per channel."""
        rng = self.rng
        params = [
            self.param(f"{name}a", 1 + 0.3 * rng.standard_normal((1, 1, channels))),
            self.param(f"{name}b", 0.3 * rng.standard_normal((1, 1, channels))),
        ]
        return self.add(name, "Scale", x, params, size=np.array([1.0, 1.0, channels]), hasBias=True)

    def relu(self, name: str, x: str, leak: float = 0.0) -> str:
        """A rectifier."""
        return self.add(name, "ReLU", x, useShortCircuit=True, leak=leak)

    def pool(self, name: str, x: str, method: str, size: int, stride: int, pad: Sequence[int] = (0, 0, 0, 0)) -> str:
        """A pooling."""
        return self.add(
            name,
            "Pooling",
            x,
            method=method,
            poolSize=np.array([size, size], float),
            stride=np.array([stride, stride], float),
            pad=np.array(pad, float),
        )

    def concat(self, name: str, inputs: Sequence[str]) -> str:
        """Channels one behind the other."""
        return self.add(name, "Concat", inputs, dim=3.0)

    def sum(self, name: str, inputs: Sequence[str]) -> str:
        """An addition."""
        return self.add(name, "Sum", inputs)

    def loss(
        self, name: str, prediction: str, out: str, loss: str = "softmaxlog", label: str = "label", **opts: Any
    ) -> str:
        """A loss block."""
        return self.add(name, "Loss", (prediction, label), out=out, loss=loss, **opts)


def cell(items: Sequence[Any]) -> np.ndarray:
    """A 1×n cell."""
    made = np.empty((1, len(items)), dtype=object)
    for at, item in enumerate(items):
        made[0, at] = item
    return made


def struct_array(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """A 1×n struct array."""
    made = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for at, row in enumerate(rows):
        made[0, at] = tuple(row.values())
    return made


def as_struct(dag: Dag, **options: Any) -> dict[str, Any]:
    """The struct that `saveobj` gives."""
    rows = [row | {key: cell(row[key]) for key in ("inputs", "outputs", "params")} for row in dag.rows]
    names = dict.fromkeys(name for row in dag.rows for name in (*row["inputs"], *row["outputs"]))
    recipe = {"learningRate": RATE, "momentum": MOMENTUM, "weightDecay": DECAY, "batchSize": 8.0, "numEpochs": 3.0}
    meta = {
        "inputs": struct_array([{"name": name, "size": np.array(size, float)} for name, size in dag.inputs.items()]),
        "trainOpts": recipe | options,
    }
    return {
        "vars": struct_array([{"name": name, "precious": False} for name in names]),
        "params": struct_array([*dag.params.values()]),
        "layers": struct_array(rows),
        "meta": meta,
    }


def save(path: Path, dag: Dag, *, variable: bool = False, **options: Any) -> Path:
    """Write a DagNN as `save(path, '-struct', 'net')` does, or as the variable `net`."""
    struct = as_struct(dag, **options)
    scipy.io.savemat(path, {"net": struct} if variable else struct, do_compression=True)
    return path


# ----------------------------------------------------------------------------------------------------------------- nets


def resnet(seed: int = 0, *, skip: bool = True) -> Dag:
    """Two residual blocks, one with a projection, batch normalisation, a global average and a classifier."""
    net = Dag(seed, {"data": (16, 16, 3)})
    x = net.relu("relu1", net.bnorm("bn1", net.conv("conv1", "data", (3, 3, 3, 8), pad=(1, 1, 1, 1), bias=False), 8))
    y = net.relu("relu2a", net.bnorm("bn2a", net.conv("conv2a", x, (3, 3, 8, 8), pad=(1,) * 4, bias=False), 8))
    y = net.bnorm("bn2b", net.conv("conv2b", y, (3, 3, 8, 8), pad=(1,) * 4, bias=False), 8)
    x = net.relu("relu2", net.sum("sum2", (x, y)) if skip else y)
    side = net.bnorm("bn3p", net.conv("conv3p", x, (1, 1, 8, 12), stride=2, bias=False), 12)
    y = net.conv("conv3a", x, (3, 3, 8, 12), pad=(1, 1, 1, 1), stride=2, bias=False)
    y = net.relu("relu3a", net.bnorm("bn3a", y, 12))
    y = net.bnorm("bn3b", net.conv("conv3b", y, (3, 3, 12, 12), pad=(1,) * 4, bias=False), 12)
    x = net.relu("relu3", net.sum("sum3", (side, y)), 0.1)
    x = net.conv("fc", net.pool("gap", x, "avg", 8, 1), (1, 1, 12, 5), out="prediction")
    net.loss("loss", x, "objective")
    net.loss("top1", x, "top1err", "classerror")
    return net


def inception(seed: int = 0) -> Dag:
    """Branches of unlike depth, dilation, groups, asymmetric pads, Scale, ConvTranspose, a label per pixel."""
    net = Dag(seed, {"data": (12, 12, 3)})
    x = net.relu("relu1", net.conv("conv1", "data", (3, 3, 3, 16), pad=(1, 1, 1, 1)))
    x = net.pool("pool1", x, "max", 3, 2, (0, 1, 0, 1))
    a = net.relu("relu_a", net.conv("branch_a", x, (1, 1, 16, 6)))
    b = net.relu("relu_b1", net.conv("branch_b1", x, (1, 1, 16, 4)))
    b = net.relu("relu_b2", net.conv("branch_b2", b, (3, 3, 4, 8), pad=(2, 2, 2, 2), dilate=2))
    c = net.conv("branch_c", net.pool("pool_c", x, "max", 3, 1, (1, 1, 1, 1)), (1, 1, 16, 6))
    d = net.relu("relu_d", net.conv("branch_d", x, (3, 3, 8, 8), pad=(1, 1, 1, 1)))
    x = net.concat("concat", (a, b, c, d))
    x = net.relu("relu2", net.scale("scale", x, 28))
    x = net.conv("conv2", x, (1, 1, 28, 8))
    x = net.convt("up", x, (4, 4, 5, 8), upsample=2, crop=(1, 1, 1, 1))
    net.labelled = (12, 12)
    net.loss("loss", x, "objective")
    return net


def two_heads(seed: int = 0) -> Dag:
    """Two losses on one trunk, the second by its weight in derOutputs; filters that two branches share."""
    net = Dag(seed, {"data": (10, 10, 3)}, ("label", "attribute"))
    x = net.relu("relu1", net.conv("conv1", "data", (3, 3, 3, 6)))
    a = net.relu("relu_a", net.conv("twin_a", x, (3, 3, 6, 6), share="twin", pad=(1, 1, 1, 1)))
    b = net.relu(
        "relu_b",
        net.conv("twin_b", net.pool("pool", x, "avg", 3, 1, (1, 1, 1, 1)), (3, 3, 6, 6), share="twin", pad=(1,) * 4),
    )
    x = net.sum("sum", (a, b))
    net.loss("loss1", net.conv("head1", x, (8, 8, 6, 4)), "objective1")
    net.loss("loss2", net.conv("head2", x, (8, 8, 6, 3)), "objective2", label="attribute")
    return net


def two_inputs(seed: int = 0) -> Dag:
    """A wide and a narrow input, brought together by an addition and a concatenation."""
    net = Dag(seed, {"left": (10, 10, 3), "right": (5, 5, 2)})
    a = net.relu("relu_a", net.conv("conv_a", "left", (3, 3, 3, 4), pad=(1, 1, 1, 1)))
    a = net.pool("pool_a", a, "avg", 2, 2)
    b = net.relu("relu_b", net.conv("conv_b", "right", (3, 3, 2, 4), pad=(1, 1, 1, 1)))
    x = net.concat("concat", (net.sum("sum", (a, b)), "right"))
    net.loss("loss", net.conv("fc", x, (5, 5, 6, 5), out="prediction"), "objective")
    return net


def probable(seed: int = 0) -> Dag:
    """Response normalisation, dropout, and a loss on probabilities, as the older model files have them."""
    net = Dag(seed, {"data": (10, 10, 3)})
    x = net.relu("relu1", net.conv("conv1", "data", (3, 3, 3, 8)))
    x = net.add("norm1", "LRN", x, param=np.array([5.0, 1.0, 0.02, 0.75]))
    x = net.pool("pool1", x, "max", 2, 2)
    x = net.relu("relu2", net.conv("fc6", x, (4, 4, 8, 10)))
    x = net.add("drop6", "DropOut", x, rate=0.4, frozen=False)
    x = net.add("prob", "SoftMax", net.conv("fc7", x, (1, 1, 10, 5)), out="prediction")
    net.loss("loss", x, "objective", "log")
    return net


def batch(dag: Dag, seed: int = 0, n: int = 8) -> dict[str, np.ndarray]:
    """Images, and a label for each of them or, for `inception`, for each pixel: -1 is ignored."""
    rng = np.random.default_rng(seed + 7)
    made = {f"x_{name}": rng.standard_normal((n, *size)).astype(np.float32) for name, size in dag.inputs.items()}
    if len(made) == 1:
        made = {"x": next(iter(made.values()))}
    if dag.labelled:
        return made | {"y": rng.integers(-1, 5, (n, *dag.labelled))}
    if len(dag.labels) > 1:
        return made | {"y_head1": rng.integers(0, 4, n), "y_head2": rng.integers(0, 3, n)}
    return made | {"y": rng.integers(0, 5, n)}


def random_dag(seed: int) -> Dag:
    """A net that nobody thought of: stages of one to three branches, joined by addition or concatenation."""
    dag = Dag(seed, {"data": (int(seed % 5) + 12, int(seed % 3) + 12, int(seed % 4) + 1)})
    rng = np.random.default_rng(seed + 1000)
    x, channels = "data", dag.inputs["data"][2]
    extent = list(dag.inputs["data"][:2])
    for stage in range(int(rng.integers(1, 4))):
        count, join = int(rng.integers(1, 4)), str(rng.choice(["sum", "concat"]))
        same = int(rng.integers(2, 5)) * 2
        ends: list[tuple[str, int]] = []
        for branch in range(count):
            outputs = same if join == "sum" else int(rng.integers(1, 4)) * 2
            ends.append((_branch(dag, rng, f"s{stage}b{branch}", x, channels, outputs), outputs))
        tensors = [tensor for tensor, _ in ends]
        if join == "sum" and channels == same and rng.random() < 0.7:
            tensors.insert(int(rng.integers(0, 2)), x)
        if len(tensors) > 1:
            x = dag.sum(f"join{stage}", tensors) if join == "sum" else dag.concat(f"join{stage}", tensors)
        else:
            x = tensors[0]
        channels = same if join == "sum" else sum(n for _, n in ends)
        if rng.random() < 0.5:
            x = dag.relu(f"relu{stage}", x, float(rng.choice([0, 0, 0.1])))
        if rng.random() < 0.3:
            x = dag.scale(f"scale{stage}", x, channels)
        if rng.random() < 0.5 and min(extent) > 6:
            pad = (0, extent[0] % 2, 0, extent[1] % 2)  # as Keras' `same` pads a window of 2
            x = dag.pool(f"pool{stage}", x, str(rng.choice(["max", "avg"])), 2, 2, pad)
            extent = [(e + 1) // 2 for e in extent]
    if rng.random() < 0.3:
        x = dag.convt("up", x, (3, 3, 4, channels), upsample=1, crop=(1, 1, 1, 1))
        channels = 4
    x = dag.conv("fc", x, (*extent, channels, 5), out="prediction")
    dag.loss("loss", x, "objective")
    if rng.random() < 0.5:
        dag.loss("top3", x, "top3err", "topkerror", opts=cell(["topK", 3.0]))
    return dag


def _branch(dag: Dag, rng: np.random.Generator, name: str, x: str, channels: int, outputs: int) -> str:
    """A way through one to three layers that keeps the map's size."""
    for at in range(int(rng.integers(1, 3))):
        size = int(rng.choice([1, 3, 5]))
        dilate = 2 if size == 3 and rng.random() < 0.3 else 1
        pad = (size - 1) * dilate // 2
        groups = 2 if channels % 2 == 0 and outputs % 2 == 0 and rng.random() < 0.3 else 1
        shape = (size, size, channels // groups, outputs)
        bias = bool(rng.random() < 0.7)
        x = dag.conv(f"{name}c{at}", x, shape, pad=(pad,) * 4, dilate=dilate, bias=bias)
        channels = outputs
        if rng.random() < 0.4:
            x = dag.bnorm(f"{name}n{at}", x, outputs, float(rng.choice([0.05, 0.1, 1.0])))
        choice = rng.random()
        if choice < 0.6:
            x = dag.relu(f"{name}r{at}", x, float(rng.choice([0, 0, 0.2])))
        elif choice < 0.7:
            x = dag.add(f"{name}g{at}", "Sigmoid", x)
    return dag.pool(f"{name}p", x, "max", 3, 1, (1, 1, 1, 1)) if rng.random() < 0.3 else x


# ---------------------------------------------------------------------------------------------------------------- Keras


def twin(
    dag: Dag,
    *,
    edits: Mapping[str, Mapping[str, Any]] | None = None,
    wire: Callable[[str, list[Any]], list[Any]] | None = None,
    scale: Callable[..., Any] | None = None,
    dense: bool = True,
    decay: float | None = DECAY,
    optimizer: Any = None,
    loss: Any = None,
    loss_weights: Any = None,
    module: Any = None,
) -> Any:
    """The Keras functional model that a careful user writes for these blocks.

    Args:
        dag: the net.
        edits: layer → fields to change in Keras.
        wire: given a layer's name and its input tensors, gives those to use: for swapped or missing connections.
        scale: maker of the layer for a Scale block, given its name; a depthwise 1×1 convolution without.
        dense: classifiers that cover the map as Flatten and Dense.
        decay: the reference's weight decay as L2(decay/2) on every parameter; None for none.
        optimizer: instead of SGD(0.01, momentum=0.9).
        loss: instead of a sparse cross-entropy of logits for each head.
        loss_weights: as `compile` takes them; where labels are per pixel, the number of pixels without.
        module: keras or tf_keras.
    """
    import keras

    k = module or keras
    builder = _Twin(k, dag, edits or {}, wire or (lambda _, tensors: tensors), scale, dense, decay)
    heads = [builder.tensors[row["inputs"][0]] for row in dag.rows if builder.trained(row)]
    model = k.Model([builder.tensors[name] for name in dag.inputs], heads)
    logits = not any(row["block"].get("loss") == "log" for row in dag.rows)
    made = [loss or k.losses.SparseCategoricalCrossentropy(from_logits=logits) for _ in heads]
    if loss_weights is None and len(heads[0].shape) == 4:
        loss_weights = [float(heads[0].shape[1] * heads[0].shape[2])]
    model.compile(
        optimizer=optimizer or k.optimizers.SGD(RATE, momentum=MOMENTUM),
        loss=made if len(made) > 1 else made[0],
        loss_weights=loss_weights,
    )
    return model


def response_norm(k: Any, name: str, size: float, kappa: float, alpha: float, beta: float) -> Any:
    """A custom layer that divides by (kappa + alpha·Σx² over the channels beside)^beta."""
    import tensorflow as tf

    class ResponseNorm(k.layers.Layer):
        def call(self, x):
            return tf.nn.local_response_normalization(x, int(size - 1) // 2, kappa, alpha, beta)

    return ResponseNorm(name=name)


class _Twin:
    """Keras tensors of every variable."""

    def __init__(self, k, dag, edits, wire, scale, dense, decay):
        self.k, self.dag, self.edits, self.scale, self.dense = k, dag, edits, scale, dense
        self.penalty = (lambda: k.regularizers.L2(decay / 2)) if decay else (lambda: None)
        self.tensors = {name: k.Input(size, name=name) for name, size in dag.inputs.items()}
        self.shared: dict[str, Any] = {}
        for row in dag.rows:
            if row["type"] == "dagnn.Loss":
                continue
            read = wire(row["name"], [self.tensors[name] for name in row["inputs"]])
            make = getattr(self, "_" + row["type"].split(".")[1].lower())
            self.tensors[row["outputs"][0]] = make(row, read, {**row["block"], **edits.get(row["name"], {})})

    @staticmethod
    def trained(row: Row) -> bool:
        return row["type"] == "dagnn.Loss" and row["block"].get("loss", "softmaxlog") in ("softmaxlog", "log")

    def _padded(self, row, x, pad):
        cells = [int(p) for p in np.ravel(pad)]
        if not any(cells):
            return x
        return self.k.layers.ZeroPadding2D(((cells[0], cells[1]), (cells[2], cells[3])), name=f"{row['name']}_pad")(x)

    def _conv(self, row, read, fields):
        k, x = self.k, read[0]
        h, w, depth, outputs = (int(n) for n in np.ravel(fields["size"]))
        options = {"kernel_regularizer": self.penalty(), "use_bias": bool(fields["hasBias"])}
        if options["use_bias"]:
            options["bias_regularizer"] = self.penalty()
        key = row["params"][0]
        covers = (h, w) == tuple(x.shape[1:3]) and not np.any(fields["pad"])
        if self.dense and covers and max(h, w, x.shape[1]) >= 1 and row is self._classifier(row):
            flat = k.layers.Flatten(name=f"{row['name']}_flatten")(x)
            return k.layers.Dense(outputs, name=row["name"], **options)(flat)
        x = self._padded(row, x, fields["pad"])
        if key not in self.shared:
            self.shared[key] = k.layers.Conv2D(
                outputs,
                (h, w),
                strides=[int(s) for s in np.ravel(fields["stride"])],
                dilation_rate=[int(d) for d in np.ravel(fields["dilate"])],
                groups=int(fields.get("groups", x.shape[-1] // depth)),
                name=row["name"],
                **options,
            )
        return self.shared[key](x)

    def _classifier(self, row):
        """The row, if a loss reads it."""
        ends = ("dagnn.Loss", "dagnn.SoftMax")
        read = {name for other in self.dag.rows if other["type"] in ends for name in other["inputs"]}
        return row if row["outputs"][0] in read else None

    def _convtranspose(self, row, read, fields):
        h, w, outputs, _ = (int(n) for n in np.ravel(fields["size"]))
        upsample = [int(u) for u in np.ravel(fields["upsample"])]
        crop = [int(c) for c in np.ravel(fields["crop"])]
        options = {"kernel_regularizer": self.penalty(), "bias_regularizer": self.penalty()}
        same = all(crop[2 * a] == (size - upsample[a]) // 2 for a, size in enumerate((h, w)))
        same = same and all(sum(crop[2 * a : 2 * a + 2]) == size - upsample[a] for a, size in enumerate((h, w)))
        layer = self.k.layers.Conv2DTranspose(
            outputs, (h, w), strides=upsample, padding="same" if same else "valid", name=row["name"], **options
        )
        y = layer(read[0])
        if same or not any(crop):
            return y
        return self.k.layers.Cropping2D(((crop[0], crop[1]), (crop[2], crop[3])), name=f"{row['name']}_crop")(y)

    def _batchnorm(self, row, read, fields):
        rate = self.dag.params[row["params"][2]]["learningRate"]
        layer = self.k.layers.BatchNormalization(
            epsilon=fields["epsilon"],
            momentum=fields.get("momentum", 1 - rate),
            gamma_regularizer=self.penalty(),
            beta_regularizer=self.penalty(),
            name=row["name"],
        )
        return layer(read[0])

    def _scale(self, row, read, fields):
        if self.scale is not None:
            return self.scale(row["name"])(read[0])
        options = {"depthwise_regularizer": self.penalty(), "bias_regularizer": self.penalty()}
        return self.k.layers.DepthwiseConv2D(1, name=row["name"], **options)(read[0])

    def _relu(self, row, read, fields):
        if fields["leak"]:
            return self.k.layers.LeakyReLU(fields["leak"], name=row["name"])(read[0])
        return self.k.layers.ReLU(name=row["name"])(read[0])

    def _pooling(self, row, read, fields):
        k, x = self.k, read[0]
        size, stride = int(np.ravel(fields["poolSize"])[0]), int(np.ravel(fields["stride"])[0])
        maker = k.layers.MaxPooling2D if fields["method"] == "max" else k.layers.AveragePooling2D
        if size == x.shape[1] == x.shape[2] and fields["method"] == "avg":
            return k.layers.GlobalAveragePooling2D(keepdims=True, name=row["name"])(x)
        padding = "same" if np.any(fields["pad"]) else "valid"
        return maker(size, strides=stride, padding=padding, name=row["name"])(x)

    def _sigmoid(self, row, read, fields):
        return self.k.layers.Activation("sigmoid", name=row["name"])(read[0])

    def _softmax(self, row, read, fields):
        return self.k.layers.Softmax(name=row["name"])(read[0])

    def _dropout(self, row, read, fields):
        return self.k.layers.Dropout(fields["rate"], name=row["name"])(read[0])

    def _lrn(self, row, read, fields):
        return response_norm(self.k, row["name"], *np.ravel(fields["param"]))(read[0])

    def _concat(self, row, read, fields):
        return self.k.layers.Concatenate(name=row["name"])(read)

    def _sum(self, row, read, fields):
        return self.k.layers.Add(name=row["name"])(read) if len(read) > 1 else read[0]
