"""Keras ports of a net, as people write them: the same arithmetic in many spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.faults.custom import custom
from bench.faults.nets import Array, Net, Node, same_pad
from bench.faults.spelling import Spelling, Training, multipliers, parts


def port(net: Net, spelling: Spelling, training: Training | None, own: bool = False, held: Any = None) -> Any:
    """The Keras model of a net.

    Args:
        net: what the author of the port believes the reference to be.
        spelling: how it is written.
        training: how it is compiled; None leaves it uncompiled.
        own: whether the net's weights are loaded into it.
        held: with `own`, node → function on the list of its Keras arrays, applied after loading.
    """
    from importlib import import_module

    return _Port(import_module(spelling.module), net, spelling, training or Training(), held or {}).built(
        own, compiled=training is not None
    )


Step = Callable[[Any], Any]


class _Port:
    def __init__(self, k: Any, net: Net, spelling: Spelling, training: Training, held: Mapping[str, Any]) -> None:
        self.k, self.net, self.spelling, self.training, self.held = k, net, spelling, training, held
        self.custom = custom(k)
        self.loaders: list[tuple[Any, Callable[[], list[Array]]]] = []
        self.layers: dict[str, list[Any]] = {}
        self.owner: dict[str, str] = {}
        self.fused: set[str] = set()
        self.flat: set[str] = set()

    # ---------------------------------------------------------------------------------------------------------- models

    def built(self, own: bool, compiled: bool) -> Any:
        model = self._container()
        if own:
            for layer, values in self.loaders:
                node = self.owner[layer.name]
                arrays = values()
                layer.set_weights(self.held[node](arrays) if node in self.held else arrays)
        for name in self.training.frozen:
            for layer in self.layers[name]:
                layer.trainable = False
        if compiled:
            self._compile(model)
        return model

    def _container(self) -> Any:
        k, net = self.k, self.net
        heads = [node.inputs[0] for node in net.of("loss")] or [net.nodes[-1].name]
        shapes = net.shapes()
        steps = [(node, self._steps(node, shapes)) for node in net.nodes if node.kind != "loss"]
        ends = {head: self._end(head) for head in heads}
        if self.spelling.container == "sequential":
            made = [step for _, of in steps for step in of] + [step for head in heads for step in ends[head]]
            return k.Sequential([k.Input(net.size), *made])
        if self.spelling.container == "subclassed":
            model = self.custom.Subclassed([(n.name, n.inputs, of) for n, of in steps], [(h, ends[h]) for h in heads])
            model(np.zeros((1, *net.size), np.float32))
            return model
        start = k.Input(net.size, name="data" if self.spelling.named else None)
        tensors: dict[str, Any] = {"data": start}
        cut = self._cut(steps) if self.spelling.container == "nested" else 0
        if cut:
            inside = k.Input(net.size)
            held = {"data": inside}
            self._run(steps[:cut], held)
            last = steps[cut - 1][0].name
            tensors[last] = k.Model(inside, held[last], name="front")(start)
        self._run(steps[cut:], tensors)
        outputs = []
        for head in heads:
            x = tensors[head]
            for step in ends[head]:
                x = step(x)
            outputs.append(x)
        return k.Model(start, outputs if len(outputs) > 1 else outputs[0])

    @staticmethod
    def _run(steps: Sequence[tuple[Node, list[Step]]], tensors: dict[str, Any]) -> None:
        for node, of in steps:
            x = [tensors[name] for name in node.inputs]
            x = x if len(x) > 1 else x[0]
            for step in of:
                x = step(x)
            tensors[node.name] = x

    @staticmethod
    def _cut(steps: Sequence[tuple[Node, list[Step]]]) -> int:
        """How many nodes may form a submodel of their own: nothing behind them reads anything but the last."""
        for cut in range(len(steps) // 2, 0, -1):
            inside = {"data", *(node.name for node, _ in steps[: cut - 1])}
            if not any(name in inside for node, _ in steps[cut:] for name in node.inputs):
                return cut
        return 0

    # ---------------------------------------------------------------------------------------------------------- layers

    def _name(self, name: str) -> dict[str, str]:
        policy = {"dtype": self.spelling.policy} if self.spelling.policy else {}
        return {**({"name": name} if self.spelling.named else {}), **policy}

    def _keep(self, node: Node, layer: Any, values: Callable[[], list[Array]] | None = None) -> Any:
        self.layers.setdefault(node.name, []).append(layer)
        self.owner[layer.name] = node.name
        if values is not None:
            self.loaders.append((layer, values))
        return layer

    def _penalties(self, node: Node, *names: tuple[str, str]) -> dict[str, Any]:
        """Keras argument → L2 of half the decay, for (argument, part) pairs."""
        factors = dict(multipliers(node, "weightDecay"))
        made = {}
        for argument, part in names:
            amount = self.training.decay * factors.get(part, 1.0) / 2
            if amount and f"{node.name}.{part}" not in self.training.undecayed:
                r = self.k.regularizers
                made[argument] = r.L1L2(l2=amount) if self.spelling.penalty == "L1L2" else r.L2(amount)
        return made

    def _steps(self, node: Node, shapes: Mapping[str, Any]) -> list[Any]:
        if node.name in self.fused:
            return []
        return getattr(self, f"_{node.kind}")(node, [shapes[name] for name in node.inputs])

    def _conv(self, node: Node, read: list[Any]) -> list[Any]:
        k, f = self.k, node.fields
        h, w, depth, outputs = node.weights[0].shape
        extent = read[0]
        penalties = self._penalties(node, ("kernel_regularizer", "kernel"), ("bias_regularizer", "bias"))
        if not f["bias"]:
            penalties = {"use_bias": False, **{n: p for n, p in penalties.items() if n == "kernel_regularizer"}}
        common: dict[str, Any] = {**penalties}
        groups = f.get("groups", extent[2] // depth)
        if self.spelling.dense and f.get("full") and groups == 1 and self._is_classifier(node):
            common["activation"] = self._fusable(node)
            layer = self._keep(node, k.layers.Dense(outputs, **common, **self._name(node.name)), lambda: _flat(node))
            self.flat.add(node.name)
            before = self.net[node.inputs[0]].name if node.inputs[0] != "data" else "data"
            return [layer] if self._flat_already(before) else [k.layers.Flatten(), layer]
        common["activation"] = self._fusable(node) if not self._feeds_loss(node) else None
        padding, steps = self._padding(node, extent, (h, w), f["stride"], f["dilate"])
        common |= {"strides": f["stride"], "dilation_rate": f["dilate"], "padding": padding}
        if groups == extent[2] and outputs % groups == 0 and groups > 1 and self.spelling.split and depth == 1:
            return [*steps, self._depthwise(node, outputs // groups, common)]
        if groups > 1 and self.spelling.split and f["stride"][0] == f["stride"][1]:
            return [*steps, self._split(node, groups, common)]
        made = k.layers.Conv2D(outputs, (h, w), groups=groups, **common, **self._name(node.name))
        return [*steps, self._keep(node, made, lambda: _arrays(node))]

    def _is_classifier(self, node: Node) -> bool:
        """Whether only 1×1 maps lie behind: a user writes such layers as Dense."""
        h, w, *_ = self.net.shapes()[node.name]
        readers = [n for n in self.net.nodes if node.name in n.inputs]
        chain = all(n.kind in ("conv", "relu", "sigmoid", "tanh", "dropout", "loss", "softmax") for n in readers)
        return (h, w) == (1, 1) and chain and all(n.kind == "loss" or self._is_chain(n) for n in readers)

    def _feeds_loss(self, node: Node) -> bool:
        return any(n.kind == "loss" and node.name in n.inputs for n in self.net.nodes)

    def _is_chain(self, node: Node) -> bool:
        readers = [n for n in self.net.nodes if node.name in n.inputs]
        return all(len(n.inputs) == 1 for n in readers) and all(n.kind == "loss" or self._is_chain(n) for n in readers)

    def _flat_already(self, name: str) -> bool:
        while name != "data":
            if name in self.flat:
                return True
            node = self.net[name]
            if node.kind in ("conv", "pool") or len(node.inputs) > 1:
                return False
            name = node.inputs[0]
        return False

    def _fusable(self, node: Node) -> str | None:
        """The activation that goes into the layer itself."""
        readers = [n for n in self.net.nodes if node.name in n.inputs]
        if len(readers) != 1:
            return None
        only = readers[0]
        if only.kind == "loss" and self.spelling.softmax == "fused" and self.spelling.dense:
            return "softmax"
        if self.spelling.activation != "fused":
            return None
        if only.kind in ("sigmoid", "tanh") or (only.kind == "relu" and not only.fields["leak"]):
            self.fused.add(only.name)
            return only.kind
        return None

    def _padding(
        self, node: Node, extent: Any, window: Any, stride: Any, dilate: Any = (1, 1)
    ) -> tuple[str, list[Any]]:
        pad = tuple(int(p) for p in node.fields["pad"])
        if not any(pad):
            return "valid", []
        if self.spelling.same and pad == same_pad(extent, window, stride, dilate):
            return "same", []
        return "valid", [self.k.layers.ZeroPadding2D(((pad[0], pad[1]), (pad[2], pad[3])))]

    def _depthwise(self, node: Node, multiplier: int, common: dict[str, Any]) -> Any:
        options = {("depthwise_regularizer" if key == "kernel_regularizer" else key): v for key, v in common.items()}
        window = node.weights[0].shape[:2]
        made = self.k.layers.DepthwiseConv2D(window, depth_multiplier=multiplier, **options, **self._name(node.name))
        channels = node.weights[0].shape[3] // multiplier

        def values() -> list[Array]:
            kernel = node.weights[0].reshape(*window, channels, multiplier)
            return [kernel, *(w.ravel() for w in node.weights[1:])]

        return self._keep(node, made, values)

    def _split(self, node: Node, groups: int, common: dict[str, Any]) -> Step:
        k = self.k
        h, w, depth, outputs = node.weights[0].shape
        each = outputs // groups
        convolutions = []
        for g in range(groups):
            made = k.layers.Conv2D(each, (h, w), **common, **self._name(f"{node.name}_{g}"))
            convolutions.append(
                self._keep(node, made, lambda g=g: [v[..., g * each : (g + 1) * each] for v in _arrays(node)])
            )
        order = node.fields.get("group_order", tuple(range(groups)))
        join = k.layers.Concatenate()
        return lambda x: join([convolutions[g](x[..., g * depth : (g + 1) * depth]) for g in order])

    def _bnorm(self, node: Node, read: list[Any]) -> list[Any]:
        f = node.fields
        options = self._penalties(node, ("gamma_regularizer", "gamma"), ("beta_regularizer", "beta"))
        made = self.k.layers.BatchNormalization(
            epsilon=f["epsilon"], momentum=f.get("momentum", 1 - f["rate"]), **options, **self._name(node.name)
        )
        return [self._keep(node, made, lambda: _moments(node))]

    def _scale(self, node: Node, read: list[Any]) -> list[Any]:
        options = self._penalties(node, ("depthwise_regularizer", "kernel"), ("bias_regularizer", "bias"))
        made = self.k.layers.DepthwiseConv2D(1, **options, **self._name(node.name))
        gain, offset = node.weights
        return [self._keep(node, made, lambda: [gain.reshape(1, 1, -1, 1), offset.ravel()])]

    def _relu(self, node: Node, read: list[Any]) -> list[Any]:
        k, leak = self.k.layers, float(node.fields["leak"])
        slope = "negative_slope" if self.spelling.module == "keras" else "alpha"
        if leak and self.spelling.activation == "layer":
            return [k.LeakyReLU(**{slope: leak}, **self._name(node.name))]
        if leak:
            return [k.ReLU(negative_slope=leak, **self._name(node.name))]
        if self.spelling.activation == "function":
            return [k.Activation("relu", **self._name(node.name))]
        return [k.ReLU(**self._name(node.name))]

    def _sigmoid(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Activation(node.kind, **self._name(node.name))]

    _tanh = _elu = _sigmoid

    def _guided(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.custom.Guided(**self._name(node.name))]

    def _steeper(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.custom.Steeper(**self._name(node.name))]

    def _noisy(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.custom.Noisy(**self._name(node.name))]

    def _pool(self, node: Node, read: list[Any]) -> list[Any]:
        k, f = self.k.layers, node.fields
        average = f["method"] == "avg"
        if average and self.spelling.pooled and tuple(f["size"]) == tuple(read[0][:2]) and not any(f["pad"]):
            return [k.GlobalAveragePooling2D(keepdims=True, **self._name(node.name))]
        maker = k.AveragePooling2D if average else k.MaxPooling2D
        pad = tuple(int(p) for p in f["pad"])
        same = any(pad) and pad == same_pad(read[0], f["size"], f["stride"]) and not f.get("zeros", False)
        before = [] if same or not any(pad) else [k.ZeroPadding2D(((pad[0], pad[1]), (pad[2], pad[3])))]
        made = maker(f["size"], strides=f["stride"], padding="same" if same else "valid", **self._name(node.name))
        return [*before, made]

    def _lrn(self, node: Node, read: list[Any]) -> list[Any]:
        size, kappa, alpha, beta = node.fields["param"]
        return [self.custom.LRN(int(size), kappa, alpha, beta, **self._name(node.name))]

    def _dropout(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Dropout(node.fields["rate"], **self._name(node.name))]

    def _softmax(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Softmax(**self._name(node.name))]

    def _rescale(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Rescaling(node.fields["scale"], node.fields["offset"], **self._name(node.name))]

    def _concat(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Concatenate(**self._name(node.name))]

    def _sum(self, node: Node, read: list[Any]) -> list[Any]:
        return [self.k.layers.Add(**self._name(node.name))]

    def _end(self, head: str) -> list[Any]:
        k, how = self.k.layers, self.spelling.softmax
        if how == "fused" and head not in self.flat:
            how = "layer"
        steps = [] if self._flat_already(head) else [k.Flatten()]
        if how in ("layer", "activation"):
            steps.append(k.Softmax() if how == "layer" else k.Activation("softmax"))
        return steps

    # -------------------------------------------------------------------------------------------------------- training

    def _compile(self, model: Any) -> None:
        k, t = self.k, self.training
        maker: Any = k.optimizers
        name, _, what = t.optimizer.partition(":")
        for part in ("SGD" if what else name).split("."):
            maker = getattr(maker, part)
        if what:
            maker = self.custom.own(k, maker, what)
        options = {name: _made(k, value) for name, value in t.options.items()}
        if t.rates:
            maker = self.custom.with_rates(maker, self._rates())
        optimizer = maker(**options)
        logits = {"from_logits": self.spelling.softmax == "logits"}
        plain = "CategoricalCrossentropy" if self.spelling.onehot else "SparseCategoricalCrossentropy"
        given = {key: value for key, value in t.loss.items() if key != "kind"}
        cross = t.loss.get("kind", plain)
        made = [
            getattr(k.losses, cross)(**({**logits, **given} if "Cross" in cross else given))
            for _ in self.net.of("loss")
        ]
        weights = [t.weights.get(node.name, 1.0) for node in self.net.of("loss")]
        several = {"loss_weights": weights} if len(made) > 1 else {}
        model.compile(optimizer=optimizer, loss=made if len(made) > 1 else made[0], metrics=[*t.metrics], **several)

    def _rates(self) -> dict[int, tuple[Any, float]]:
        """Place among a layer's variables → factor, as (variable, factor)."""
        made = {}
        for key, factor in self.training.rates.items():
            name, part = key.split(".")
            place = parts(self.net[name]).index(part)
            for layer in self.layers[name]:
                variable = layer.trainable_variables[place]
                made[id(variable)] = (variable, factor)
        return made


def _made(k: Any, value: Any) -> Any:
    """A schedule is written as (class, options)."""
    if isinstance(value, tuple):
        return getattr(k.optimizers.schedules, value[0])(**value[1])
    return value


def _arrays(node: Node) -> list[Array]:
    """Filters and bias as Conv2D has them."""
    return [node.weights[0], *(w.ravel() for w in node.weights[1:])]


def _flat(node: Node) -> list[Array]:
    """Filters and bias as Dense behind Flatten has them."""
    kernel = node.weights[0]
    return [kernel.reshape(-1, kernel.shape[3]), *(w.ravel() for w in node.weights[1:])]


def _moments(node: Node) -> list[Array]:
    """Gamma, beta, mean and variance; MatConvNet's deviation includes its epsilon."""
    gamma, beta, moments = node.weights
    variance = np.maximum(moments[:, 1].astype(np.float64) ** 2 - node.fields.get("stored", node.fields["epsilon"]), 0)
    return [gamma.ravel(), beta.ravel(), moments[:, 0], variance.astype(np.float32)]
