"""Keras 1's configurations in the words of Keras 2: every layer type, argument and object that changed its name.

Nothing is built. Keras 2 knew both spellings by decorators on its constructors (keras 2.1.6, `legacy/interfaces.py`),
which later versions dropped, so that no Keras of today opens a file of Keras 1; the weights' own changes are in
`legacy_weights`. The `Merge` layer outlived Keras 1 (2.0–2.2, `legacy/layers.py`) and is put into today's words too.
"""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.merges import Branches, first_merges, is_model, merge

__all__ = ["class_today", "gone", "is_old", "repaired"]

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "AtrousConv1D": "Conv1D",
    "AtrousConv2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconv2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    "Deconv3D": "Conv3DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "SeparableConv2D": "SeparableConv2D",
}

_GONE = {
    "MaxoutDense": "Dense layers and a Maximum",
    "Highway": "two Dense layers, Multiply and Add",
    "ParametricSoftplus": "a layer of your own",
    "SReLU": "a layer of your own",
}
"""Layers of Keras 1 that no later Keras has, and what says the same today."""

_WORDS = {
    "output_dim": "units",
    "nb_filter": "filters",
    "border_mode": "padding",
    "subsample": "strides",
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "U_constraint": "recurrent_constraint",
    "b_constraint": "bias_constraint",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "p": "rate",
    "filter_length": "kernel_size",
    "subsample_length": "strides",
    "pool_length": "pool_size",
    "stride": "strides",
    "length": "size",
    "sigma": "stddev",
    "beta_init": "beta_initializer",
    "gamma_init": "gamma_initializer",
    "input_dtype": "dtype",
}
"""Arguments that only changed their names, whichever layer has them."""

_DROPPED = frozenset("consume_less input_dim input_length forget_bias_init mode dropout output_shape".split())
"""Arguments of Keras 1 that say nothing that a later Keras is told (each layer keeps what it still needs)."""

_INITIALIZERS = {
    "uniform": {"class_name": "RandomUniform", "config": {"minval": -0.05, "maxval": 0.05, "seed": None}},
    "normal": {"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.05, "seed": None}},
    "zero": "zeros",
    "one": "ones",
}
"""Names of Keras 1 (keras 1.2.2, `initializations.py`); the others kept theirs."""

_CHANNELS = frozenset(
    """
    Conv2D Conv3D Conv2DTranspose Conv3DTranspose SeparableConv2D LocallyConnected2D MaxPooling2D MaxPooling3D
    AveragePooling2D AveragePooling3D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling2D
    GlobalAveragePooling3D UpSampling2D UpSampling3D ZeroPadding2D ZeroPadding3D Cropping2D Cropping3D
    SpatialDropout2D SpatialDropout3D ConvLSTM2D
    """.split()
)
"""Layers that have a `data_format`."""

_RECURRENT = frozenset("SimpleRNN LSTM GRU ConvLSTM2D".split())


def class_today(class_name: str) -> str:
    """The name that a layer of Keras 1 has today."""
    return "Dense" if class_name == "TimeDistributedDense" else _CLASSES.get(class_name, class_name)


def is_old(config: Any, era: int) -> bool:
    """Whether a model's configuration needs repair: it is Keras 1's, or has a layer as only early Keras 2 had it."""
    return era == 1 or (era == 2 and _any(config, _early))


def _early(entry: Mapping[str, Any]) -> bool:
    config = entry.get("config")
    if entry.get("class_name") == "Merge":
        return True
    # Before Keras 2.1.3 there was no `reset_after`, and tf_keras takes it for granted.
    return entry.get("class_name") == "GRU" and isinstance(config, Mapping) and "reset_after" not in config


def _any(item: Any, test: Callable[[Mapping[str, Any]], bool]) -> bool:
    return next((True for entry in _entries(item) if test(entry)), False)


def _entries(item: Any) -> Iterator[Mapping[str, Any]]:
    """Every layer's entry of a configuration, those in submodels and wrappers too."""
    if isinstance(item, Mapping):
        if isinstance(item.get("class_name"), str):
            yield item
        for part in item.values():
            yield from _entries(part)
    elif isinstance(item, list):
        for part in item:
            yield from _entries(part)


def gone(config: Any, given: Container[str] = ()) -> str:
    """The first layer that no later Keras has, as "layer x is ..."; empty where there is none.

    Args:
        config: of a model of Keras 1 or 2.
        given: the classes of the user's own, which may have a lost layer's name.
    """
    for entry in _entries(config):
        reason = "" if entry["class_name"] in given else _unknown_today(entry)
        if reason:
            inner = entry.get("config")
            name = entry.get("name") or (inner.get("name") if isinstance(inner, Mapping) else "")
            return f"layer {name} {reason}"
    return ""


def _unknown_today(entry: Mapping[str, Any]) -> str:
    """Why no later Keras has this layer, as the rest of the sentence "layer x ..."; empty where one has it."""
    name = str(entry.get("class_name", ""))
    config = entry.get("config")
    config = config if isinstance(config, Mapping) else {}
    if name in _GONE:
        return f"is a {name}, which ended with Keras 1; say it as {_GONE[name]}, or compare a model built in Python"
    if name == "BatchNormalization" and config.get("mode", 0) not in (0, None):
        what = "each sample" if config.get("mode") == 1 else "the batch at inference too"
        return f"normalises {what} (mode={config.get('mode')}), which ended with Keras 1"
    if name == "Merge" and config.get("mode") == "cos":
        # It expanded axis 1 of what it made, and divided rows i, j by the root of x_i·x_j y_i·y_j: no cosine for i ≠ j.
        return (
            "is a Merge of mode cos, whose output had an axis more than a Dot's; say it as Dot(normalize=True) and "
            "Reshape, or compare a model built in Python"
        )
    if name == "Embedding" and config.get("dropout"):
        return f"drops words of its vocabulary in training (dropout={config['dropout']}), which ended with Keras 1"
    for key, value in config.items():
        if isinstance(value, Mapping) and value.get("name") == "EigenvalueRegularizer":
            return f"has an EigenvalueRegularizer ({key}), which ended with Keras 1"
    return ""


def repaired(entry: Mapping[str, Any], era: int) -> dict[str, Any]:
    """A model's entry (class_name, config) as Keras 2 writes it; raises ValueError where it is none.

    Args:
        entry: as the file has it.
        era: of the file. For 2 only `Merge` is put into other words, and a GRU told what it took for granted.
    """
    ordering = _ordering(entry) if era == 1 else ""
    return _model(entry, era, ordering)


def _ordering(item: Any) -> str:
    """The one `dim_ordering` of a model; layers that do not write theirs (padding, flattening) had the same default."""
    if isinstance(item, Mapping):
        own = item.get("dim_ordering")
        if own in ("th", "tf"):
            return own
        return next((found for part in item.values() if (found := _ordering(part))), "")
    if isinstance(item, list):
        return next((found for part in item if (found := _ordering(part))), "")
    return ""


def _made(entry: Mapping[str, Any], era: int, ordering: str) -> dict[str, Any]:
    return (_model if is_model(entry) else _layer)(entry, era, ordering)


def _model(entry: Mapping[str, Any], era: int, ordering: str) -> dict[str, Any]:
    config = entry.get("config")
    layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(layers, list):
        return dict(entry)
    if entry.get("class_name") == "Sequential" and layers and first_merges(layers):
        return Branches(lambda part: _made(part, era, ordering)).run(entry, layers)
    made: list[Any] = []
    for layer in layers:
        if not isinstance(layer, Mapping):
            made.append(layer)
        else:
            made.append(_made(layer, era, ordering))
    return {**entry, "config": {**config, "layers": made} if isinstance(config, Mapping) else made}


def _layer(entry: Mapping[str, Any], era: int, ordering: str) -> dict[str, Any]:
    name, config = entry.get("class_name"), entry.get("config")
    if not isinstance(config, Mapping):
        return dict(entry)
    if name == "Merge":
        return merge(entry, config)
    if era != 1:
        return _settled(entry, config)
    if _unknown_today(entry):
        return dict(entry)
    if name in ("TimeDistributed", "Bidirectional"):
        inner = config.get("layer")
        wrapped = _layer(inner, era, ordering) if isinstance(inner, Mapping) else inner
        return {**entry, "config": {**_renamed(config), "layer": wrapped}}
    if name == "TimeDistributedDense":
        inner = {k: v for k, v in config.items() if k not in ("batch_input_shape", "input_dtype")}
        outer = {k: v for k, v in config.items() if k in ("name", "trainable", "batch_input_shape")}
        dense = {"class_name": "Dense", "config": _arguments("Dense", {**inner, "name": f"{config.get('name')}_dense"})}
        return {**entry, "class_name": "TimeDistributed", "config": {**outer, "layer": dense}}
    word = _CLASSES.get(str(name), str(name))
    made = _arguments(word, config)
    if word in _CHANNELS and "data_format" not in made and ordering:
        made["data_format"] = {"th": "channels_first", "tf": "channels_last"}[ordering]
    return {**entry, "class_name": word, "config": made}


def _settled(entry: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A layer of early Keras 2, with what later versions would otherwise decide."""
    inner = config.get("layer")
    if isinstance(inner, Mapping) and isinstance(inner.get("config"), Mapping):
        return {**entry, "config": {**config, "layer": _settled(inner, inner["config"])}}
    if entry.get("class_name") == "GRU":
        return {**entry, "config": {"reset_after": False, **config}}
    return dict(entry)


def _arguments(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """One layer's settings in the words of Keras 2."""
    made = _renamed(config)
    if "dim_ordering" in made:
        made["data_format"] = {"th": "channels_first", "tf": "channels_last"}.get(made.pop("dim_ordering"))
    if "nb_row" in made and "nb_col" in made:
        made["kernel_size"] = [made.pop("nb_row"), made.pop("nb_col")]
    if "kernel_dim1" in made:
        made["kernel_size"] = [made.pop(f"kernel_dim{i}") for i in (1, 2, 3)]
    if name == "Embedding":
        made["output_dim"] = made.pop("units", config.get("output_dim"))
        made["input_dim"], made["input_length"] = config.get("input_dim"), config.get("input_length")
        _move(made, "kernel_", "embeddings_")
    elif name == "PReLU":
        _move(made, "kernel_", "alpha_")
    elif name == "SeparableConv2D":
        initializer = made.pop("kernel_initializer", "glorot_uniform")
        made |= {"depthwise_initializer": initializer, "pointwise_initializer": initializer}
    elif name in _RECURRENT:
        if "forget_bias_init" in config:
            made["unit_forget_bias"] = config["forget_bias_init"] in ("one", "ones")
        if name == "GRU":
            made["reset_after"] = False
    if name == "Lambda":
        made["output_shape"] = config.get("output_shape")
        if config.get("function_type") == "function":  # by name alone, which tf_keras takes for a value
            named = {"class_name": "function", "config": config.get("function"), "module": "builtins"}
            made["function"] = {**named, "registered_name": config.get("function")}
    if name == "Dropout":
        made.setdefault("rate", config.get("p"))
    if name in ("ZeroPadding2D", "ZeroPadding1D", "Cropping2D", "Cropping1D", "UpSampling1D"):
        made |= _borders(name, config)
    if name == "RepeatVector" or name == "Permute" or name == "Reshape":
        made |= {k: config[k] for k in ("n", "dims", "target_shape") if k in config}
    return made


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in config.items():
        if key in _DROPPED:
            continue
        word = _WORDS.get(key, key)
        if key == "init" or key.endswith("_init"):
            value = _INITIALIZERS.get(value, value) if isinstance(value, str) else value
        elif key.endswith("_regularizer"):
            value = _regularizer(value)
        elif key.endswith("_constraint"):
            value = _constraint(value)
        made[word] = value
    return made


def _move(made: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in made if key.startswith(old)]:
        made[new + key.removeprefix(old)] = made.pop(key)


def _regularizer(value: Any) -> Any:
    """`{"name": "WeightRegularizer", "l1": 0, "l2": c}` (keras 1.2.2, `regularizers.py`) → L1L2."""
    if not isinstance(value, Mapping) or "class_name" in value:
        return value
    config = {key: float(value.get(key) or 0.0) for key in ("l1", "l2")}
    return {"class_name": "L1L2", "config": config}


def _constraint(value: Any) -> Any:
    """`{"name": "MaxNorm", "m": 2, "axis": 0}` (keras 1.2.2, `constraints.py`) → class_name and config."""
    if not isinstance(value, Mapping) or "class_name" in value:
        return value
    words = {"m": "max_value", "low": "min_value", "high": "max_value"}
    config = {words.get(key, key): part for key, part in value.items() if key != "name"}
    return {"class_name": str(value.get("name")), "config": config}


def _borders(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Padding and cropping, which Keras 1 also wrote as four numbers or as words."""
    if name == "UpSampling1D":
        return {"size": config.get("length", 2)}
    key = "cropping" if name.startswith("Cropping") else "padding"
    value = config.get(key)
    if isinstance(value, Mapping):
        sides = [int(value.get(f"{side}_pad", 0)) for side in ("top", "bottom", "left", "right")]
        value = sides[2:] if name.endswith("1D") else sides
    if name.endswith("2D") and isinstance(value, Sequence) and len(value) == 4:
        value = [[value[0], value[1]], [value[2], value[3]]]
    return {key: value}
