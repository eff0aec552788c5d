"""Every field of a config, with meaning, unit and source.

`get_config("phantom")` trains on synthetic cases that the run writes itself, within minutes on two
CPU cores. `get_config("emidec")` is the protocol of Zhou et al., EMIDEC 2020, and requires
`--config.data.root=DIR`. A stage of the paper's Table 1 is this file plus the few lines in
`baseline.py`, `attention.py`, `awce.py` or `awce_penalty.py`.

Any field can be set on the command line: `--config.optimizer.learning_rate=3e-3`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jaxseg.anatomy import EMIDEC

VARIANTS = ("phantom", "emidec")
PHANTOM = {
    "data.phantom_cases": 60,
    "data.split": "case",
    "data.validation_fraction": 0.2,
    "grid.size": (64, 64),
    "grid.spacing": 2.1,
    "model.width": 8,
    "train.epochs": 40,
    "train.validate_every": 4,
}


def get_config(variant: str = "phantom") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"config variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    config = ConfigDict()
    config.name = "baseline"  # name of the stage, in the default run folder and in tables
    config.variant = variant  # "phantom" or "emidec", as in configs/STAGE.py:emidec
    config.seed = 0  # root of initialization, batch order and mixup

    _set_data(config)
    _set_mixup_and_augmentation(config)
    _set_networks_and_losses(config)
    _set_training(config)
    if variant == "phantom":
        config.update_from_flattened_dict(PHANTOM)
    return config.lock()


def _set_data(config: ConfigDict) -> None:
    config.data = data = ConfigDict()
    data.root = placeholder(str)  # folder of the cases; None for a phantom: data/phantom-...
    data.layout = "emidec"  # layout of data.root: "emidec", or "nnunet" (raw layout)
    # Values in label maps of the anatomy's labels, as "VALUE=LABEL,...", for example for MyoPS
    # "0=background,600=background,500=cavity,...". Predictions contain the first value of each
    # label. None: 0, 1, 2 ... in the anatomy's order, or the values in nnU-Net's dataset.json.
    data.label_values = placeholder(str)
    data.apex_first = True  # slice 0 is the apex, as in EMIDEC; False: the base
    data.phantom_cases = 0  # cases of the phantom to write and read; 0: read data.root
    data.phantom_seed = 0  # seed of the phantom
    data.split = "slice"  # "slice": the paper's, optimistic; "case": patient-wise
    # Fraction of slices or cases held out; the paper's is 0.1. 0.0: train on all cases, for a final
    # network whose scores come from a cross-validation.
    data.validation_fraction = 0.1
    data.folds = 0  # number of folds, at least 2; 0: one split by validation_fraction
    data.fold = 0  # held-out fold, 0 to data.folds - 1
    # Patient of each case, so that a split by case keeps all scans of a patient on one side: a
    # regular expression whose first group is the patient in a case's name, such as r"(pat\d+)_", or
    # a CSV file with columns case,patient. None: each case is a separate patient.
    data.patients = placeholder(str)
    # User-defined split by case: nnU-Net's splits_final.json, of which data.fold is held out, or a
    # CSV file with columns case,fold or case,side (train or val). None: a random split.
    data.splits = placeholder(str)
    data.split_seed = 0  # seed of the split, so that runs with several `seed` share it

    config.grid = grid = ConfigDict()  # network grid, in plane
    grid.size = (128, 128)  # pixels, divisible by 2^model.depth
    grid.spacing = 1.4  # mm, about EMIDEC's native in-plane spacing; 0.0: not resampled
    # Center (row, column) of the grid, as fractions of the native field of view. None: the heart of
    # each stack; a small network that locates it is then trained as well (jaxseg/localizer.py).
    grid.center = placeholder(tuple)
    grid.center = (0.5, 0.5)  # EMIDEC's hearts are within 3 mm of (0.5, 0.5)
    grid.allow_outside = False  # labels outside the grid are a warning, not an error
    # Train on the fraction of each pixel that each label covers, not on label maps; not in the
    # paper.
    grid.soft_labels = False

    config.intensity = intensity = ConfigDict()
    intensity.method = "zscore"  # normalization per stack: "zscore", "percentile" (to 0..1), "none"
    intensity.low = 1.0  # lower percentile of the tissue, at which intensities are clipped
    intensity.high = 99.0  # upper percentile
    # Correct a smooth bias field, such as that of a surface coil, by N4; not in the paper.
    intensity.bias_field = False

    config.anatomy = EMIDEC.to_dict()  # label names, inclusion pairs (Eq. 5), scored regions


def _set_mixup_and_augmentation(config: ConfigDict) -> None:
    config.mixup = mixup = ConfigDict()  # Eq. 1-2, and transplants
    # Fraction of examples that are mixed. The paper does not state it. With all examples mixed,
    # networks do not learn the infarct in short schedules
    # (docs/studies/003-share-of-mixed-examples.md).
    mixup.probability = 0.5
    mixup.tolerance = 0.1  # largest difference of partners' heights (0 base, 1 apex)
    # Probability that an unmixed slice without pathology receives the pathology of another slice of
    # similar height, at the same place in its wall; not in the paper. Pathology is every inner
    # label of anatomy.inclusions.
    mixup.transplant = 0.0

    # Ordinary augmentation after mixup, which the paper and its stages do not use. A size of 0
    # disables its change.
    config.augment = augment = ConfigDict()
    # Probability of a geometric change, and, drawn independently, of a change of intensities.
    augment.probability = 0.0
    augment.flip = False  # mirror rows and columns
    augment.turn = False  # swap rows and columns; with flip, all eight orientations
    augment.rotation = 0.0  # largest angle, degrees
    augment.zoom = 0.0  # largest change of scale; 0.2: a factor from 1 / 1.2 to 1.2
    augment.shift = 0.0  # largest shift along rows and along columns, mm
    augment.gamma = 0.0  # largest change of the exponent of intensities, as zoom
    augment.contrast = 0.0  # largest change of the distance to the mean, as zoom
    augment.brightness = 0.0  # largest offset, in units of the normalized image
    augment.noise = 0.0  # largest standard deviation, in the same units
    augment.bias = 0.0  # largest change of the signal at the grid's border, as zoom


def _set_networks_and_losses(config: ConfigDict) -> None:
    config.model = model = ConfigDict()
    model.width = 32  # channels of the finest level
    model.depth = 4  # number of poolings
    model.attention = False  # attention blocks
    model.dense = False  # densely connected blocks (the ablation text's "dense U-net")
    # Neighboring slices exchange features at the coarse levels; not in the paper.
    model.context = False
    model.groups = 8  # groups of normalization in both networks; 0: instance norm
    model.precision = "float32"  # compute dtype, or "bfloat16"; parameters and loss are float32

    config.loss = loss = ConfigDict()
    loss.weighted = False  # automated weighted cross-entropy (Eq. 3), not plain
    loss.penalty = 0.0  # coefficient of the neighboring loss (Eq. 5); the paper's is 0.01
    loss.dice = 0.0  # coefficient of a soft Dice loss; not in the paper
    # Units of the soft Dice loss: "labels", or "regions", which are the regions scored per case
    # (the infarct includes no-reflow) and each label that is in none of them.
    loss.dice_of = "labels"
    loss.epsilon = 1e-3  # Eq. 4's "small given number"

    config.balance = balance = ConfigDict()  # objective of the weight generator of Eq. 3
    # "adversarial", or "minimize": Eq. 3 itself, with a trivial optimum (jaxseg/label_weights.py).
    balance.method = "adversarial"
    balance.strength = 0.7  # coefficient of the adversarial generator's entropy
    balance.width = 16  # channels of the weight generator's first convolution


def _set_training(config: ConfigDict) -> None:
    config.optimizer = optimizer = ConfigDict()
    # "adam", the paper's, or "muon", which orthogonalizes the steps of convolution kernels.
    optimizer.method = "adam"
    optimizer.learning_rate = 1e-2  # learning rate after the warm-up; the paper's
    optimizer.final_learning_rate = 1e-6  # learning rate of the last step; the paper's
    optimizer.schedule = "cosine"  # "cosine", "linear" or "constant"
    # Epochs of linear rise, because 1e-2 is high for random parameters
    # (docs/studies/004-warm-up.md). A run of at most this length warms up for its first half.
    optimizer.warmup_epochs = 5.0
    optimizer.clip_norm = 1.0  # largest norm of each sub-network's gradient; 0.0: no clipping

    config.train = train = ConfigDict()
    train.batch_size = 16  # slices per step, over all devices; the paper's
    train.epochs = 400  # passes over the training slices; the paper's
    train.validate_every = 5  # epochs between validations, each with a checkpoint
    # Fine-tuning: run folder (its last checkpoint) or bundle from whose parameters this run starts,
    # or "pretrained" for the bundled network; also --init_from=RUN. None: random parameters. The
    # optimizer and the schedule start anew. See docs/how-to/own-data.md#fine-tuning. A study may
    # start from another one: each run from that of the same stage, seed and fold.
    train.init_from = placeholder(str)

    config.run = run = ConfigDict()  # may differ in a resumed run
    run.devices = 0  # devices that each process uses; 0: all local devices
    # Implementation of 3x3 convolutions: "xla"; "native", C++ code for CPUs, which needs a compiler
    # at first use and rounds differently; "auto": native if available, else XLA.
    run.convolution = "auto"
    run.log_every = 20  # steps between logged training metrics
    run.pictures = 6  # slices in the picture of each validation; 0: no picture
    run.compilation_cache = "~/.cache/jaxseg/xla"  # folder; "": no cache
