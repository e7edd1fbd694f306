"""Losses, as a layer that takes predictions and labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, scalar, setting, text, whole
from parity.layers.keras_losses import IN_CODE, KERAS_WORDS, class_of, settings_of, word_of
from parity.layers.loss_weights import Factor, check_weights, spread, stored_weights
from parity.layers.loss_words import BINARY, CATEGORICAL, INTEGERS

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
            or Keras' own (`binary_crossentropy`, `mean_squared_error`, ...; its `hinge` is `mean_hinge`).
        reduction: `"mean"` over the images, `"pixel-mean"` over images and pixels (Keras' mean where a prediction is a
            map), `"counted-mean"` over those whose label is not below zero (Keras' mean with an `ignore_class` of -1),
            `"sum"`, or `"none"`. MatConvNet's is the mean over the images: before 2018 it sums and the trainer
            divides by the batch, later it divides itself, and what enters the update is the same.
        label_smoothing: share of the label's mass spread over all classes.
        sparse: whether the framework's loss wants class ids (True) or one-hot vectors (False).
        top: K of `topkerror`.
        threshold: what `binaryerror` cuts the predictions at.
        factor: what the file multiplies every cost by (MatConvNet's `instanceWeights`): a number, or one per cell.
        settings: names and values of a Keras loss' settings that are not its defaults (`delta`, `gamma`, ...).
        ignored: the label that costs nothing and need not be a class (Keras' `ignore_class`).
    """

    causes: ClassVar = {
        "function": "loss-kind",
        "reduction": "loss-reduction",
        "label_smoothing": "loss-kind",
        "settings": "loss-kind",
    }
    matconvnet: ClassVar = ("softmaxloss", "loss", "dagnn.Loss")

    function: str = "softmaxlog"
    reduction: str = "mean"
    label_smoothing: float = 0.0
    sparse: bool = True
    top: int = 5
    threshold: float = 0.0
    factor: Factor = 1.0
    settings: tuple[tuple[str, Any], ...] = ()
    ignored: int | None = field(default=None, compare=False)

    def counts_otherwise(self, other: Loss) -> bool:
        """Whether both are means over what counts, and leave out other labels: Keras' with another `ignore_class`.

        MatConvNet's mean is over the images, whatever counts of each.
        """
        laws = {self.reduction, other.reduction}
        means = self.reduction == "counted-mean" or "pixel-mean" in laws
        return means and "counted-mean" in laws and "sum" not in laws and self.ignored != other.ignored

    @property
    def target(self) -> str:
        """What its labels are: `"ids"` (class ids from 0), `"signs"` (-1 and +1, 0 ignored), `"values"`, or `"either"`.

        Keras' losses take either, class ids as one-hot vectors.
        """
        if self.function in BINARY:
            return "signs"
        return "ids" if self.function in CATEGORICAL else "either"

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
        `auto` are the mean: over images and pixels, if `inputs` says that the predictions are maps.
        """
        name = word_of(class_name)
        function = "mean_hinge" if name == "hinge" else name
        if name in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
            function = "softmaxlog" if config.get("from_logits") else "log"
        reduction = str(config.get("reduction") or "none" if "reduction" in config else "mean").lower()
        if reduction in ("sum_over_batch_size", "auto", "mean", "mean_with_sample_weight"):
            maps = bool(inputs) and len(inputs[0]) > 1 and name not in ("dice", "tversky", "ctc")
            reduction = "pixel-mean" if maps else "mean"
        smoothing = config.get("label_smoothing")
        share = float(smoothing) if isinstance(smoothing, int | float) else 0.0
        sparse = name.startswith("sparse") or name in ("categorical_generalized_cross_entropy", *INTEGERS)
        settings = settings_of(name, config)
        ignored = config.get("ignore_class") if name == "sparse_categorical_crossentropy" else None
        if isinstance(ignored, int) and ignored < 0 and reduction in ("sum", "mean", "pixel-mean"):
            # Labels below zero cost nothing on either side; a mean also counts fewer pixels.
            settings = tuple((key, v) for key, v in settings if key != "ignore_class")
            reduction = "sum" if reduction == "sum" else "counted-mean"
        return cls(function, reduction, share, sparse, settings=settings, ignored=ignored)

    def keras_line(self, field_name: str) -> str:
        """The loss, or its constructor argument."""
        if field_name in ("function", "settings"):
            return f"loss={self._constructor()}"
        if field_name == "reduction" and self.reduction == "counted-mean":
            return f"ignore_class={self.ignored}"
        if field_name == "reduction":
            word = "sum_over_batch_size" if self.reduction.endswith("mean") else self.reduction
            return f'reduction="{word}"'
        return f"label_smoothing={self.label_smoothing}" if field_name == "label_smoothing" else ""

    @property
    def in_keras(self) -> tuple[str, dict[str, Any]]:
        """Class and config of a loss that is no cross-entropy of classes, in Keras; empty where Keras has none.

        Those of attributes are the mean over the attributes there (`same_cost`).
        """
        name, settings = KERAS_WORDS.get(self.function, (self.function, ()))
        return class_of(name), dict((*settings, *self.settings))

    def same_cost(self, other: Loss) -> bool:
        """Whether two losses of attributes are one function, which Keras divides by the number of attributes."""
        for one, two in ((self, other), (other, self)):
            if one.function in BINARY and one.function in KERAS_WORDS:
                name, settings = KERAS_WORDS[one.function]
                if (two.function, two.settings) == ("mean_hinge" if name == "hinge" else name, settings):
                    return True
        return False

    def _constructor(self) -> str:
        """The Keras expression that makes it."""
        said = {"softmaxlog": {"from_logits": True}, "log": {"from_logits": False}}.get(self.function)
        if said is None:
            name, config = self.in_keras
        else:
            name = "SparseCategoricalCrossentropy" if self.sparse else "CategoricalCrossentropy"
            config = {**said, **dict(self.settings)}
        arguments = ", ".join(f"{key}={value!r}" for key, value in config.items())
        return f"keras.losses.{name}({arguments})" if name else IN_CODE.get(self.function, f'"{self.function}"')

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
            self._weights(inputs[0], context.weights),
            self.label_smoothing,
            top=self.top,
            threshold=self.threshold,
            settings=dict(self.settings),
        )
        if self.reduction == "pixel-mean":
            return total / (inputs[0].numel() // inputs[0].shape[1])
        if self.reduction == "counted-mean":
            return total / max(1, int((context.labels >= 0).sum()))
        return total / inputs[0].shape[0] if self.reduction == "mean" else total

    def _weights(self, x: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
        """The batch's weights times the file's."""
        if self.factor == 1:
            return given
        import torch

        own = torch.as_tensor(spread(self.factor, x), dtype=x.dtype)
        own = own.unsqueeze(1) if own.dim() and self.function in BINARY else own
        return own if given is None else given * own

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Loss:
        """`softmaxloss`, and `loss`, which calls vl_nnloss with its default and so is the same (vl_simplenn.m).

        A `dagnn.Loss` block names its loss, and may give vl_nnloss' topK, threshold and instance weights.
        """
        function = setting(layer, "loss", text, "softmaxlog")
        if function not in CATEGORICAL + BINARY:
            raise ValueError(f"its loss is {function!r}; vl_nnloss knows {', '.join(CATEGORICAL + BINARY)}")
        top, threshold = setting(layer, "topK", whole, 5), setting(layer, "threshold", scalar, 0.0)
        if top < 1:
            raise ValueError(f"its topK is {top}, not a number from 1 on")
        return cls(function, top=top, threshold=threshold, factor=stored_weights(layer))

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Loss:
        """The same, if there are as many classes as it ranks (vl_nnloss.m stops otherwise)."""
        check_weights(self.factor, inputs)
        classes = inputs[0][-1] if inputs and inputs[0] else None
        if self.function == "topkerror" and classes is not None and classes < self.top:
            raise ValueError(f"it looks for the best {self.top} of {classes} classes")
        return self
