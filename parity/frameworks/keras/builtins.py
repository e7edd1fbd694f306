"""What a configuration may name without any code of the user's: the classes of Keras 1, 2 and 3."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

__all__ = ["ACTIVATIONS", "CLASSES", "OPERATIONS"]

CLASSES = frozenset(
    """
    AUC AbstractRNNCell Accuracy Activation ActivityRegularization Adadelta Adafactor Adagrad Adam AdamW Adamax
    AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
    AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout AtrousConv1D AtrousConv2D
    AtrousConvolution1D AtrousConvolution2D Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D AvgPool3D BatchNormalization Bidirectional
    BinaryAccuracy BinaryCrossentropy BinaryFocalCrossentropy BinaryIoU CTC CategoricalAccuracy
    CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge
    CategoryEncoding CenterCrop Circle Concatenate ConcordanceCorrelation Constant Constraint
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D
    Convolution2DTranspose Convolution3D Convolution3DTranspose CosineDecay CosineDecayRestarts CosineSimilarity
    Cropping1D Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CutMix DTypePolicy DTypePolicyMap Deconv2D Deconv3D
    Deconvolution2D Deconvolution3D Dense DenseFeatures DepthwiseConv1D DepthwiseConv2D Dice Discretization Dot
    Dropout DynamicEmbedding DynamicLookup ELU EinsumDense Embedding Equalization ExponentialDecay F1Score
    FBetaScore FalseNegatives FalsePositives Flatten FlaxLayer FloatDTypePolicy Ftrl Functional GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlorotNormal GlorotUniform GroupNormalization
    GroupQueryAttention GroupedQueryAttention HashedCrossing Hashing HeNormal HeUniform Highway Hinge Huber Identity
    IdentityInitializer Initializer InputLayer InputSpec IntegerLookup InverseTimeDecay IoU JaxLayer
    KLDivergence L1 L1L2 L2 LSTM LSTMCell Lamb Layer LayerNormalization LeakyReLU LearningRateSchedule
    LecunNormal LecunUniform Lion LocallyConnected1D LocallyConnected2D LogCosh LogCoshError Loss
    LossScaleOptimizer LossScaleOptimizerV3 Masking MaxNorm MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MaxoutDense Mean MeanAbsoluteError
    MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanRelativeError MeanSquaredError
    MeanSquaredLogarithmicError MeanTensor MelSpectrogram Merge Metric MinMaxNorm Minimum MixUp Model
    ModuleWrapper MultiHeadAttention MultiOptimizer Multiply Muon Nadam NonNeg Normalization OneHotIoU
    OneHotMeanIoU Ones Optimizer OptimizerMap Orthogonal OrthogonalInitializer OrthogonalRegularizer PReLU
    ParametricSoftplus PearsonCorrelation Permute PiecewiseConstantDecay Pipeline Poisson Policy PolynomialDecay
    Precision PrecisionAtRecall PyMetric QuantizedDTypePolicy R2Score RMSNormalization RMSprop RNN
    RadialConstraint RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomFourierFeatures RandomGaussianBlur
    RandomGrayscale RandomHeight RandomHue RandomInvert RandomNormal RandomPerspective RandomPosterization
    RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomUniform RandomWidth
    RandomZoom ReLU Recall RecallAtPrecision Reduction Regularizer RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding RootMeanSquaredError SGD SReLU STFT STFTInitializer STFTSpectrogram ScheduleFreeAdamW
    SeedGenerator SensitivityAtSpecificity SeparableConv1D SeparableConv2D SeparableConvolution1D
    SeparableConvolution2D Sequential SharpnessAwareMinimization SimpleRNN SimpleRNNCell SlicingOpLambda Softmax
    Solarization SparseCategoricalAccuracy SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpecificityAtSensitivity SpectralNormalization
    SquaredHinge StackedRNNCells StringLookup Subtract Sum SyncBatchNormalization TFOpLambda TFSMLayer
    TensorFlowOpLayer TextVectorization ThresholdedReLU TimeDistributed TimeDistributedDense
    TopKCategoricalAccuracy TorchModuleWrapper TrueNegatives TruePositives TruncatedNormal Tversky UnitNorm
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D VarianceScaling Wrapper ZeroPadding1D ZeroPadding2D
    ZeroPadding3D Zeros constant glorot_normal glorot_uniform he_normal he_uniform identity l1 l1_l2 l2
    lecun_normal lecun_uniform max_norm min_max_norm non_neg ones orthogonal orthogonal_regularizer
    radial_constraint random_normal random_uniform stft truncated_normal unit_norm variance_scaling zeros
    """.split()
)
"""Public classes of keras.layers, models, initializers, regularizers, constraints, optimizers, losses and metrics.
Any version's. `Lambda` is not among them: it holds a function's byte code."""

ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)
"""Names of the functions of keras.activations, in any version."""

OPERATIONS = frozenset(
    """
    __operators__ math nn cast clip_by_value concat expand_dims gather identity image linalg ones_like pad repeat
    reshape slice split squeeze stack stop_gradient strided_slice tile transpose unstack where zeros_like
    """.split()
)
"""First names of tensorflow functions that a Keras 2 `TFOpLambda` may call: they compute, and touch nothing else."""
