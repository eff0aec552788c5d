"""Every knob of a run, with meaning, unit and source.

`get_config("phantom")` trains on an embedded synthetic cohort and ends within minutes on two CPU
cores; `get_config("emidec")` is the protocol of Zhou et al., EMIDEC 2020, on the real cases and
asks for `--config.data.root=DIR`. A stage of the paper's Table 1 is this file plus the few lines in
`baseline.py`, `attention.py`, `awce.py` or `awce_penalty.py`.

Any knob can be set on the command line: `--config.optimizer.learning_rate=3e-3`.
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
    config.name = "baseline"  # of the stage; names the default workdir and the rows of tables
    config.variant = variant  # phantom or emidec, as in configs/STAGE.py:emidec
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
    data.root = placeholder(str)  # folder of cases; None with a phantom: data/phantom-...
    data.layout = "emidec"  # of root: "emidec", or "nnunet": nnU-Net's raw layout
    # Which values of label maps stand for which labels of the anatomy, as "VALUE=LABEL,...": for
    # MyoPS "0=background,600=background,500=cavity,..." Predictions are written in the first value
    # of each label. None: 0, 1, 2 ... in the anatomy's order, or what nnU-Net's dataset.json says.
    data.label_values = placeholder(str)
    data.apex_first = True  # whether slice 0 is the apex, as in EMIDEC, or the base
    data.phantom_cases = 0  # cases of the embedded phantom to write and read; 0: cases in root
    data.phantom_seed = 0  # of the phantom's hearts
    data.split = "slice"  # "slice" as in the paper (optimistic), or "case": patient-wise
    # Of slices or cases; the paper's 90 % / 10 %. 0.0: train on all, for a network to hand on whose
    # scores come from folds.
    data.validation_fraction = 0.1
    data.folds = 0  # k > 1: k folds instead of the fraction
    data.fold = 0  # which of them validates, 0 .. folds - 1
    # Scans of one patient stay on one side of a split by case: a regular expression whose first
    # group is the patient in a case's name, r"(pat\d+)_", or a CSV file with columns case,patient.
    data.patients = placeholder(str)
    # A split of your own, by case: nnU-Net's splits_final.json, of which data.fold is used, or a
    # CSV file with columns case,fold or case,side (train or val).
    data.splits = placeholder(str)
    data.split_seed = 0  # apart from `seed`, so that several seeds share one split

    config.grid = grid = ConfigDict()  # network grid, in plane
    grid.size = (128, 128)  # pixels, divisible by 2^model.depth
    grid.spacing = 1.4  # mm, about the native in-plane spacing of EMIDEC; 0.0: no resampling
    # Of the crop, as fractions of the native field of view. None: at the heart, wherever it lies;
    # a small network that finds it is then trained along (jaxseg/localizer.py).
    grid.center = placeholder(tuple)
    grid.center = (0.5, 0.5)  # EMIDEC's hearts lie within 3 mm of it
    grid.allow_outside = False  # warn, rather than fail, where labels reach out of the grid
    # Train towards each label's share of a pixel, not the label of most of it; not the paper's.
    grid.soft_labels = False

    config.intensity = intensity = ConfigDict()
    intensity.method = "zscore"  # per stack: "zscore", "percentile" (to 0..1) or "none"
    intensity.low = 1.0  # percentiles of the tissue that intensities are clipped at
    intensity.high = 99.0  # likewise
    # Take out a slope of the signal, such as a surface coil leaves; not the paper's.
    intensity.even = False

    config.anatomy = EMIDEC.to_dict()  # label names, inclusion pairs (Eq. 5), scored regions


def _set_mixup_and_augmentation(config: ConfigDict) -> None:
    config.mixup = mixup = ConfigDict()  # Eq. 1-2
    # Share of examples that are mixed. The paper augments with mixed pairs, not saying how many;
    # with all examples mixed, short schedules do not learn the infarct
    # (docs/studies/003-share-of-mixed-examples.md).
    mixup.probability = 0.5
    mixup.tolerance = 0.1  # of partners' heights in their stacks (0 base .. 1 apex)

    # Ordinary augmentation, after mixup: not the paper's, and off in its stages. A size of 0 turns
    # its piece off; 0.2 of zoom, gamma or contrast is a factor from 1 / 1.2 to 1.2.
    config.augment = augment = ConfigDict()
    augment.probability = 0.0  # share of examples moved, and, drawn apart, changed in intensity
    augment.flip = False  # mirror rows and columns
    augment.turn = False  # exchange rows and columns; with flips all eight orientations
    augment.rotation = 0.0  # degrees
    augment.zoom = 0.0  # change of size
    augment.shift = 0.0  # mm, along rows and along columns, bringing in what lies beside the crop
    augment.gamma = 0.0  # change of the exponent that bends intensities
    augment.contrast = 0.0  # change of the distance to the mean
    augment.brightness = 0.0  # largest shift, in units of the normalized image
    augment.noise = 0.0  # largest standard deviation, in the same units
    augment.bias = 0.0  # change of the signal at the crop's border, as near a surface coil


def _set_networks_and_losses(config: ConfigDict) -> None:
    config.model = model = ConfigDict()
    model.width = 32  # channels of the finest level
    model.depth = 4  # poolings
    model.attention = False  # attention blocks
    model.dense = False  # densely connected blocks (the ablation text's "dense U-net")
    model.groups = 8  # of both networks' group normalization; 0: instance normalization
    model.precision = "float32"  # compute dtype, or "bfloat16"; parameters and loss are float32

    config.loss = loss = ConfigDict()
    loss.weighted = False  # automated weighted cross-entropy (Eq. 3) instead of the plain one
    loss.penalty = 0.0  # coefficient of the neighboring loss (Eq. 5); the paper's is 0.01
    loss.dice = 0.0  # coefficient of a soft Dice loss; not the paper's
    # Of each of the "labels", or of "regions": those scored per case, as a whole (the infarct with
    # its no-reflow), and each label in none of them.
    loss.dice_of = "labels"
    loss.epsilon = 1e-3  # Eq. 4's "small given number"

    config.balance = balance = (
        ConfigDict()
    )  # what keeps Eq. 3's weights honest (jaxseg/label_weights.py)
    balance.method = "adversarial"  # or "minimize", whose optimum is trivial
    balance.strength = 0.7  # coefficient of the adversarial generator's entropy
    balance.width = 16  # channels of the weight generator's first convolution


def _set_training(config: ConfigDict) -> None:
    config.optimizer = optimizer = ConfigDict()
    # "adam", the paper's, or "muon", which orthogonalizes the steps of convolution kernels.
    optimizer.method = "adam"
    optimizer.learning_rate = 1e-2  # paper: from 1e-2 ...
    optimizer.final_learning_rate = 1e-6  # ... to 1e-6
    optimizer.schedule = "cosine"  # "cosine", "linear" or "constant"
    # Linear rise from 0; 1e-2 is high for a fresh network (docs/studies/004-warm-up.md). A run of
    # no more epochs than these warms up for its first half.
    optimizer.warmup_epochs = 5.0
    optimizer.clip_norm = 1.0  # norm of each sub-network's gradient; 0.0: no clipping

    config.train = train = ConfigDict()
    train.batch_size = 16  # of all devices together; the paper's
    train.epochs = 400  # the paper's
    train.validate_every = 5  # epochs; validation and a checkpoint
    # Fine-tuning: folder of another run (its last checkpoint) or exported bundle, or "pretrained"
    # for the network that comes with jaxseg, whose parameters this run starts from, with an
    # optimizer and a schedule of its own; also --init_from=RUN. None: random parameters.
    # model.width, depth, attention, dense and groups must be as there; where the labels are others,
    # the layers that give one output a label start at random. Cases that the other run was trained
    # on are left out of evaluation. Fewer epochs and a lower optimizer.learning_rate than for a new
    # network will usually do.
    train.init_from = placeholder(str)

    config.run = run = ConfigDict()  # changes nothing in the result, so a resumed run may differ
    run.devices = 0  # devices that each process uses: 0 all of its own
    # What computes 3x3 convolutions: "native" is this project's own code for CPUs, which needs a
    # C++ compiler once and rounds otherwise than "xla"; "auto": native where it can be had.
    run.convolution = "auto"
    run.log_every = 20  # steps between logged training metrics
    run.pictures = 6  # slices in the sample picture of each validation; 0: none
    run.compilation_cache = "~/.cache/jaxseg/xla"  # "": compile anew every time
