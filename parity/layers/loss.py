"""Losses, as a layer that takes predictions and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, numbers, scalar
from parity.layers.loss_words import BINARY, CATEGORICAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Loss(Kind):
    """What the predictions cost.

    Attributes:
        function: the neutral word: `softmaxlog` (cross-entropy of logits), `log` (cross-entropy of probabilities),
            MatConvNet's other words (mhinge, mshinge, hinge, logistic, binarylog, classerror, topkerror, binaryerror),
            or Keras' own (`binary_crossentropy`, `mean_squared_error`, ...).
        reduction: `"mean"` over the batch's elements, `"sum"`, or `"none"`. MatConvNet's is the mean over the images:
            before 2018 it sums and the trainer divides by the batch, later it divides itself, and what enters the
            update is the same.
        label_smoothing: share of the label's mass spread over all classes.
        sparse: whether the framework's loss wants class ids (True) or one-hot vectors (False).
        top: K of `topkerror`.
        threshold: what `binaryerror` cuts the predictions at.
        factor: what the file multiplies every cost by (MatConvNet's `instanceWeights`).
    """

    causes: ClassVar = {
        "function": "loss-kind",
        "reduction": "loss-reduction",
        "label_smoothing": "loss-kind",
    }
    matconvnet: ClassVar = ("softmaxloss", "loss", "dagnn.Loss")

    function: str = "softmaxlog"
    reduction: str = "mean"
    label_smoothing: float = 0.0
    sparse: bool = True
    top: int = 5
    threshold: float = 0.0
    factor: float = 1.0

    @property
    def target(self) -> str:
        """What its labels are: `"ids"` (class ids from 0), `"signs"` (-1 and +1, 0 ignored) or `"values"`."""
        return "signs" if self.function in BINARY else "ids"

    @property
    def differentiable(self) -> bool:
        """Whether a gradient comes out of it; an error rate has none."""
        return not self.function.endswith("error") or self.function.startswith("mean_")

    def raw_value(self, value: float, images: int, version: str) -> float:
        """The loss as MatConvNet itself shows it (`res(end).x`, a Loss block's output).

        Args:
            value: what `forward` gives.
            images: of the batch.
            version: `"head"` (since 2018, commit 23699180: the sum divided by the images, vl_nnloss.m:269) or
                `"beta25"` (the last release and older: the sum).

        Raises:
            ValueError: another version.
        """
        if version not in ("head", "beta25"):
            raise ValueError(f"the version is 'head' or 'beta25', not {version!r}")
        total = value * images if self.reduction == "mean" else value
        return total / images if version == "head" and self.divides else total

    @property
    def divides(self) -> bool:
        """Whether MatConvNet since 2018 divides the sum by the images: in every loss of vl_nnloss."""
        return True

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Loss:
        """A Keras loss, by its class (`CategoricalCrossentropy`) or function name, with its config.

        A cross-entropy of probabilities is `log`, of logits `softmaxlog`. Keras' `sum_over_batch_size` and Keras 2's
        `auto` are the mean.
        """
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name.split(">")[-1]).lower()
        name = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "bce": "binary_crossentropy"}.get(name, name)
        function = name
        if name in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
            function = "softmaxlog" if config.get("from_logits") else "log"
        reduction = str(config.get("reduction") or "none" if "reduction" in config else "mean").lower()
        if reduction in ("sum_over_batch_size", "auto", "mean_with_sample_weight"):
            reduction = "mean"
        return cls(function, reduction, float(config.get("label_smoothing") or 0.0), name.startswith("sparse"))

    def keras_line(self, field_name: str) -> str:
        """The loss, or its constructor argument."""
        words = {"softmaxlog": "from_logits=True", "log": "from_logits=False"}
        if field_name == "function":
            name = "SparseCategoricalCrossentropy" if self.sparse else "CategoricalCrossentropy"
            if self.function in words:
                return f"loss=keras.losses.{name}({words[self.function]})"
            return f'loss="{self.function}"'
        if field_name == "reduction":
            return 'reduction="' + {"mean": "sum_over_batch_size"}.get(self.reduction, self.reduction) + '"'
        return f"label_smoothing={self.label_smoothing}" if field_name == "label_smoothing" else ""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """A single number."""
        return ()

    def reach(self) -> Reach | None:
        """All of it."""
        return None

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The cost of predictions (n, c, h, w) or (n, c), a scalar; `mean` divides by the images (vl_nnloss.m:269)."""
        from parity.layers._losses import cost

        if context.labels is None:
            raise ValueError("a loss needs labels")
        total = cost(
            self.function,
            inputs[0],
            context.labels,
            context.weights,
            self.label_smoothing,
            top=self.top,
            threshold=self.threshold,
        )
        total = total * self.factor if self.factor != 1 else total
        return total / inputs[0].shape[0] if self.reduction == "mean" else total

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Loss:
        """`softmaxloss`, and `loss`, which calls vl_nnloss with its default and so is the same (vl_simplenn.m).

        A `dagnn.Loss` block names its loss, and may give vl_nnloss' topK, threshold and one instance weight.
        """
        function = layer.get("loss", "softmaxlog")
        if function not in CATEGORICAL + BINARY:
            raise ValueError(f"its loss is {function!r}; vl_nnloss knows {', '.join(CATEGORICAL + BINARY)}")
        top, threshold = scalar(layer.get("topK", 5)), scalar(layer.get("threshold", 0.0))
        if top < 1 or top != int(top):
            raise ValueError(f"its topK is {top:g}, not a whole number from 1 on")
        weights = numbers(layer.get("instanceWeights", []))
        if len(weights) > 1:
            raise ValueError(
                "its instanceWeights are those of one batch; remove them, and give weights with the labels"
            )
        return cls(function, top=int(top), threshold=threshold, factor=weights[0] if weights else 1.0)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Loss:
        """The same, if there are as many classes as it ranks (vl_nnloss.m stops otherwise)."""
        classes = inputs[0][-1] if inputs and inputs[0] else None
        if self.function == "topkerror" and classes is not None and classes < self.top:
            raise ValueError(f"it looks for the best {self.top} of {classes} classes")
        return self
