"""Two layers of one class that the vocabulary has no fields for, held against each other in their framework's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["CLASS", "cause_of", "settings_apart"]

CLASS = "class_name"
"""The setting that says which class a layer is of."""

_IDLE = frozenset(
    (
        "activity_regularizer", "autocast", "batch_input_shape", "batch_shape", "cpu_merge", "data_format", "dtype",
        "dynamic", "implementation", "input_dim", "input_length", "input_shape", "mask_zero", "name", "ragged",
        "registered_name", "seed", "sparse", "stateful", "synchronized", "time_major", "trainable", "unroll",
        "use_cudnn", "zero_output_for_mask", CLASS,
    )
)  # fmt: skip
"""Settings that move no number here, or that are compared where they act."""

_CAUSES = {
    "activation": "activation-kind", "recurrent_activation": "activation-kind",
    "alpha": "activation-slope", "negative_slope": "activation-slope",
    "cropping": "padding-size", "output_padding": "padding-size", "padding": "padding-size",
    "dilation_rate": "conv-dilation", "strides": "conv-stride",
    "pool_size": "pool-size",
    "dropout": "dropout-rate", "rate": "dropout-rate", "recurrent_dropout": "dropout-rate", "stddev": "dropout-rate",
    "epsilon": "bn-epsilon",
    "center": "bias-missing", "scale": "layer-missing", "use_bias": "bias-missing",
}  # fmt: skip


def settings_apart(
    ref: Mapping[str, Any], keras: Mapping[str, Any], rank: int | None
) -> Iterator[tuple[str, Any, Any]]:
    """(setting, the reference's value, Keras' value) of those that both layers have and that differ.

    Args:
        ref: name → value, of the reference's layer (`Layer.settings`).
        keras: of the Keras layer.
        rank: how many axes their input has without the batch axis: an axis may be counted from either end.

    Nothing where either says none, or where they are of different classes.
    """
    if not ref or ref.get(CLASS) != keras.get(CLASS):
        return
    for name, value in ref.items():
        last = name.rsplit(".", 1)[-1]
        if last in _IDLE and not (last == CLASS and "." in name):
            continue
        if name in keras and _plain(last, value, rank) != _plain(last, keras[name], rank):
            yield name, value, keras[name]


def cause_of(name: str, class_name: str) -> str:
    """The slug of the cause that another value of a setting is.

    Args:
        name: of the setting; of a layer inside a wrapper `"layer.strides"`.
        class_name: of the layer.
    """
    if name == "strides" and "Pool" in class_name:
        return "pool-stride"
    return _CAUSES.get(name.rsplit(".", 1)[-1], "unknown")


def _plain(name: str, value: Any, rank: int | None) -> Any:
    """A value as two spellings of it have in common: axes counted from the end, whole numbers as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple):
        return value
    if name in ("axis", "axes", "shared_axes"):
        axes = [value] if isinstance(value, int | float) else list(value)
        whole = all(isinstance(n, int) for n in axes)
        return sorted(n if n < 0 or rank is None else n - rank - 1 for n in axes) if whole else axes
    return [_plain("", part, None) for part in value] if isinstance(value, list | tuple) else float(value)
