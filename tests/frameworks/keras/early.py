"""Files as Keras 1.2 and 2.0 wrote them, made with h5py alone, and what their layers compute, in plain numpy."""

import json

import h5py
import numpy as np


def write(path, config, weights, *, version="1.2.2", backend=None, training=None, slots=None):
    """An `.h5` of early Keras.

    Args:
        path: where.
        config: class_name and config of the model.
        weights: layer → name → array, in order.
        version: of Keras.
        backend: Keras 2 writes it, Keras 1 does not.
        training: `training_config`.
        slots: name → array of the optimizer, in order.
    """
    with h5py.File(path, "w") as f:
        f.attrs["keras_version"] = version.encode()
        if backend:
            f.attrs["backend"] = backend.encode()
        f.attrs["model_config"] = json.dumps(config).encode()
        group = f.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        if version.startswith("2"):
            group.attrs["keras_version"], group.attrs["backend"] = version.encode(), (backend or "").encode()
        for layer, arrays in weights.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, value in arrays.items():
                inner[name] = np.asarray(value, np.float32)
        if training is not None:
            f.attrs["training_config"] = json.dumps(training).encode()
            if slots:
                stored = f.create_group("optimizer_weights")
                stored.attrs["weight_names"] = [name.encode() for name in slots]
                for name, value in slots.items():
                    stored[name] = np.asarray(value, np.float32)
    return path


def named(layer, *arrays, words, theano=False):
    """A layer's arrays by the names that Keras 1 gave its variables: tensorflow's end in `:0`."""
    end = "" if theano else ":0"
    return {f"{layer}_{word}{end}": array for word, array in zip(words.split(), arrays, strict=True)}


def layer(class_name, name, **config):
    """One layer of Keras 1, with what every configuration has."""
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}


def conv(name, filters, size, *, ordering="tf", class_name="Convolution2D", **config):
    settings = {
        "nb_filter": filters, "nb_row": size[0], "nb_col": size[1], "init": "glorot_uniform", "activation": "linear",
        "border_mode": "valid", "subsample": [1, 1], "dim_ordering": ordering, "W_regularizer": None,
        "b_regularizer": None, "activity_regularizer": None, "W_constraint": None, "b_constraint": None, "bias": True,
    }  # fmt: skip
    return layer(class_name, name, **{**settings, **config})


def dense(name, units, **config):
    settings = {
        "output_dim": units, "init": "glorot_uniform", "activation": "linear", "W_regularizer": None,
        "b_regularizer": None, "activity_regularizer": None, "W_constraint": None, "b_constraint": None, "bias": True,
        "input_dim": None,
    }  # fmt: skip
    return layer("Dense", name, **{**settings, **config})


def recurrent(class_name, name, units, **config):
    settings = {
        "output_dim": units, "init": "glorot_uniform", "inner_init": "orthogonal", "activation": "tanh",
        "W_regularizer": None, "U_regularizer": None, "b_regularizer": None, "dropout_W": 0.0, "dropout_U": 0.0,
        "return_sequences": False, "go_backwards": False, "stateful": False, "unroll": False, "consume_less": "cpu",
        "input_dim": None, "input_length": None,
    }  # fmt: skip
    if class_name != "SimpleRNN":
        settings["inner_activation"] = "hard_sigmoid"
    if class_name == "LSTM":
        settings["forget_bias_init"] = "one"
    return layer(class_name, name, **{**settings, **config})


# What the layers compute ------------------------------------------------------------------------------------------


def correlate(x, kernel, bias, *, pads=((0, 0), (0, 0)), stride=(1, 1), dilate=(1, 1)):
    """Cross-correlation of n h w c with h w i o, in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    kh, kw = kernel.shape[:2]
    h = (x.shape[1] - (kh - 1) * dilate[0] - 1) // stride[0] + 1
    w = (x.shape[2] - (kw - 1) * dilate[1] - 1) // stride[1] + 1
    y = np.zeros((len(x), h, w, kernel.shape[3]))
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilate[0], j * dilate[1]
            part = x[
                :, top : top + (h - 1) * stride[0] + 1 : stride[0], left : left + (w - 1) * stride[1] + 1 : stride[1]
            ]
            y += part @ kernel[i, j]
    return y + bias


def pooled(x):
    """Maxima of 2×2 windows of n h w c."""
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def lstm(x, gates, sequences=False):
    """`gates` is gate → (W, U, b)."""
    n, steps, _ = x.shape
    units = gates["i"][2].shape[0]
    h, c, found = np.zeros((n, units)), np.zeros((n, units)), []
    for t in range(steps):
        pre = {g: x[:, t] @ W + h @ U + b for g, (W, U, b) in gates.items()}
        c = hard_sigmoid(pre["f"]) * c + hard_sigmoid(pre["i"]) * np.tanh(pre["c"])
        h = hard_sigmoid(pre["o"]) * np.tanh(c)
        found.append(h)
    return np.stack(found, 1) if sequences else h


def gru(x, gates):
    n, steps, _ = x.shape
    h = np.zeros((n, gates["z"][2].shape[0]))
    for t in range(steps):
        z, r = (hard_sigmoid(x[:, t] @ gates[g][0] + h @ gates[g][1] + gates[g][2]) for g in "zr")
        W, U, b = gates["h"]
        h = z * h + (1 - z) * np.tanh(x[:, t] @ W + (r * h) @ U + b)
    return h


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
