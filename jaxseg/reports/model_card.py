"""The model card of an exported network: its data, training, scores, intended use and limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxseg.config.sections import DataSource
from jaxseg.config.setup import Setup
from jaxseg.reports.document import Section, Table, markdown
from jaxseg.runs import provenance
from jaxseg.runs.bundle import ONNX
from jaxseg.runs.data_file import STARTED_FROM
from jaxseg.runs.trained import Trained

_PAPER = (
    'Y. Zhou, K. Zhang, X. Luo, S. Wang, X. Zhuang, "Anatomy Prior Based U-net for Pathology '
    'Segmentation with Attention", STACOM 2020'
)
_EMIDEC = (
    'A. Lalande et al., "Emidec: A Database Usable for the Automatic Evaluation of Myocardial '
    'Infarction from Delayed-Enhancement Cardiac MRI", Data 5(4):89, 2020'
)
_USAGE = "\n## How to use it\n"
_EMIDEC_NAME = re.compile(r"Case_[NP]\d{3}")


@dataclass(frozen=True)
class Facts:
    """The facts that a model card states.

    Attributes:
      run: the exported network.
      scores: Markdown reports by heading, each with its own headings starting at level 1.
      remarks: sentences on missing scores.
      calling_convention: calling convention version of the artifact in `jax.export`; None for a
        compact bundle, which has no artifact.
      made_with: versions by package.
      files: size in bytes and SHA-256 by path.
    """

    run: Trained
    scores: Mapping[str, str]
    remarks: tuple[str, ...]
    calling_convention: int | None
    made_with: Mapping[str, str]
    files: Mapping[str, tuple[int, str]]


def model_card(facts: Facts, edited: str | None = None) -> str:
    """Format the card as Markdown; its Python snippets run in the bundle's folder.

    Args:
      facts: what it states.
      edited: card of the same network, whose text is kept up to the section on its use.
    """
    run, labels = facts.run, facts.run.anatomy.labels
    title = f"Model card: {run.setup.name}"
    sections = [
        Section("What it is", _what(run), (_table(_method(run)),)),
        Section("Intended use", _USE.format(images=_images(run), targets=", ".join(labels[1:]))),
        Section("Data and license", _data(run), (_table(_split(run)),)),
        Section("Training", "", (_table(_training(run)),)),
        Section("Scores", _scores(facts)),
        Section("Limits", _limits(run)),
        Section("How to use it", _usage(facts)),
        Section("Files and versions", _versions(facts), (_files(facts),)),
    ]
    card = markdown(title, sections)
    if edited is None:
        return card
    return edited.partition(_USAGE)[0].rstrip() + "\n" + "".join(card.partition(_USAGE)[1:])


def is_own_data(source: DataSource, data: Mapping[str, Any]) -> bool:
    """Return whether the cases are neither the phantom's nor, by their names, EMIDEC's."""
    synthetic = source.phantom_cases or data.get("synthetic")
    return not synthetic and not _has_emidec_names(data)


def _has_emidec_names(data: Mapping[str, Any]) -> bool:
    return all(_EMIDEC_NAME.fullmatch(name) for name in data["cases"])


def _table(rows: Mapping[str, object]) -> Table:
    return Table(("", ""), tuple((name, str(value)) for name, value in rows.items()))


def _what(run: Trained) -> str:
    labels = enumerate(run.anatomy.labels)
    numbered = ", ".join(f"{value} {name}" for value, name in labels)
    return (
        f"A 2D U-net that labels {_images(run)}: {numbered}. It was trained with jaxseg by the "
        f"method of {_PAPER}."
    )


def _images(run: Trained) -> str:
    if is_own_data(run.setup.source, run.data):
        return "slices of cardiac images like those it was trained on"
    return "short-axis slices of late gadolinium enhancement MR"


def _method(run: Trained) -> dict[str, object]:
    setup, num_parameters = run.setup, sum(leaf.size for leaf in jax.tree.leaves(run.params))
    network, penalty, grid = setup.architecture, setup.objective.penalty, setup.grid
    spacing = f"{grid.spacing:g} mm" if grid.spacing else "native pixels"
    return {
        "stage": setup.name,
        "network": f"width {network.width}, depth {network.depth}"
        + (", dense blocks" if network.dense else "")
        + f", {_normalization(network.groups)}, {num_parameters:,} parameters, "
        + f"computing in {network.precision}",
        "attention blocks": _yes(network.attention),
        "pathology mixup (Eq. 1-2)": f"{setup.mixup.probability:.0%} of the examples",
        "automated weighted cross-entropy (Eq. 3)": _weighting(setup),
        "neighborhood penalty (Eq. 4-5)": f"coefficient {penalty:g}" if penalty else "no",
        "beyond the paper": ", ".join(_extras(setup)) or "nothing",
        "input": f"{grid.size[0]} x {grid.size[1]} pixels of {spacing}, "
        f"intensities {setup.preprocessing.normalization} (preprocessing.json)",
    }


def _weighting(setup: Setup) -> str:
    """Describe how Eq. 3's weights avoid their trivial optimum, which the paper leaves open."""
    if not setup.architecture.weighted:
        return "no"
    return f"yes; {setup.objective.method} generator, strength {setup.objective.strength:g}"


def _normalization(groups: int) -> str:
    return f"group normalization ({groups} groups)" if groups else "instance normalization"


def _extras(setup: Setup) -> list[str]:
    share, objective = setup.augmentation.probability, setup.objective
    whole = " of whole regions" if objective.dice_regions else ""
    texts = {
        "crops centered on the heart, which a localizer finds": setup.grid.center is None,
        "bias field corrected by N4": setup.preprocessing.bias_field,
        "features exchanged between neighboring slices": setup.architecture.context,
        "instance normalization": not setup.architecture.groups,
        "optimizer Muon": setup.optimization.method == "muon",
        "targets that hold each label's share of a pixel": setup.soft_labels,
        f"pathology transplanted into {setup.mixup.transplant:.0%} of the healthy slices that are "
        "not mixed": setup.mixup.transplant,
        f"ordinary augmentation of {share:.0%} of the examples": share,
        f"soft Dice loss{whole} (coefficient {objective.dice:g})": objective.dice,
    }
    return [text for text, used in texts.items() if used]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_USE = """\
Research on segmentation methods: benchmarks, teaching, a starting point for other training;
on {images}, for {targets}.

It is not a medical device. Do not use it for diagnosis, treatment or any decision about a patient,
nor for images of another kind: other sequences, views, modalities, organs or species. An expert
must check every label map before it is used."""


def _data(run: Trained) -> str:
    more = ""
    if STARTED_FROM in run.data:
        more = (
            "\n\nTraining started from the parameters of another network (see Training), so the "
            "license of its data applies, too: **state it here before you share this network.**"
        )
    return _own_data(run) + more


def _own_data(run: Trained) -> str:
    source = run.setup.source
    if source.phantom_cases or run.data.get("synthetic"):
        return (
            f"jaxseg's embedded phantom, seed {source.phantom_seed}: synthetic images, no "
            "patient's data, no license applies. A network trained on it shows that the software "
            "works and is of no use on real images."
        )
    if _has_emidec_names(run.data):
        return (
            f"EMIDEC, as the names of the cases say: {_EMIDEC}; <https://emidec.com>. License of "
            "the data: CC BY-NC-SA 4.0. This network was trained on it and has the same license: "
            "attribute the source, no commercial use, share it only under the same license."
            "\n\nIf the cases only have EMIDEC's names, correct this section."
        )
    return (
        "The user's own cases. **State their source and license here**, on which the license of "
        "the network depends.\n\n`data.json` contains the names of the cases. Make sure that they "
        "identify nobody before you share the bundle."
    )


def _split(run: Trained) -> dict[str, object]:
    split, known = run.setup.split, run.data
    if split.kind == "slice":
        text = (
            f"by slice, {split.title}; patients have slices on both sides, so scores are optimistic"
        )
    else:
        patients = "cases" if split.patients else "slices"
        text = f"by case, {split.title}; all {patients} of a patient on one side"
    return {
        "cases": len(known["cases"]),
        "split": text,
        "trained on": _part(known["training"]),
        "validated on": _part(known["validation"]),
    }


def _part(part: Mapping[str, Any]) -> str:
    return f"{part['slices']} slices of {len(part['cases'])} cases"


def _training(run: Trained) -> dict[str, object]:
    course, how = run.setup.course, run.setup.optimization
    steps = run.setup.plan(run.data["training"]["slices"]).steps
    epochs = run.step / steps * course.epochs
    return {
        "length": f"{course.epochs} epochs: {steps} steps of {course.batch_size} slices",
        "optimizer": f"{how.method.capitalize()}, learning rate {how.learning_rate:g} to "
        f"{how.final_learning_rate:g}, {how.schedule}",
        "seed": run.setup.seed,
        "started from": " ".join(provenance.started_from(run.data)) or "random parameters",
        "this checkpoint": f"{run.checkpoint}, step {run.step} (epoch {epochs:.0f})",
    }


def _scores(facts: Facts) -> str:
    parts = [" ".join(facts.remarks)] if facts.remarks else []
    for heading, text in facts.scores.items():
        # The report's own title is dropped, and its sections are placed below this heading.
        _, _, body = text.strip().partition("\n")
        parts += [f"### {heading}", re.sub(r"^#", "###", body.strip(), flags=re.MULTILINE)]
    if facts.run.checkpoint == "best":
        parts.append(
            "The best checkpoint was chosen by its score on the validation slices: scores on them "
            "are optimistic."
        )
    return "\n\n".join(parts)


def _limits(run: Trained) -> str:
    reach = "with its two neighbors" if run.setup.architecture.context else "separately"
    lines = [
        f"- It segments each slice {reach}. Everything outside the network grid is background.",
        "- Scores may be lower with other scanners, protocols, contrast agents and patients than "
        "those of the training data, by an unknown amount.",
        "- Probabilities are a softmax, not calibrated.",
        "- GPUs round differently from CPUs, which may change voxels between two labels.",
    ]
    if "spacing" in run.data:
        low, high = run.data["spacing"]
        edges = " x ".join(f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
        rejected = "`predict` rejects voxels less than half as large or more than twice as large"
        lines.insert(1, f"- Voxels trained on: {edges} mm; {rejected}.")
    return "\n".join(lines)


def _usage(facts: Facts) -> str:
    parts = [_WITH_JAXSEG]
    height, width = facts.run.setup.grid.size
    if facts.calling_convention is not None:
        parts.append(_WITH_JAX.format(height=height, width=width))
    if ONNX in facts.files:
        parts.append(_WITH_ONNX.format(height=height, width=width))
    return "\n\n".join([*parts, _WITH_ORBAX])


_WITH_JAXSEG = """\
With jaxseg, where BUNDLE is this folder; the run is not needed:

```bash
python -m jaxseg predict FILE_OR_FOLDER --run=BUNDLE --output=DIR
python -m jaxseg evaluate CASES --run=BUNDLE --output=DIR
```"""
_WITH_JAX = """\
With JAX and NumPy alone (and `flatbuffers`, which `jax.export` needs), in this folder;
preprocessing.json describes how slices are prepared and results are brought back to the scan:

```python
from pathlib import Path

import numpy as np
from jax import export

network = export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
images = np.zeros((3, {height}, {width}), np.float32)  # any number of slices of a stack
probabilities = np.asarray(network.call(images))  # (3, {height}, {width}, labels)
labels = probabilities.argmax(-1)  # values as in preprocessing.json
```"""
_WITH_ONNX = """\
With onnxruntime and NumPy alone, likewise:

```python
import numpy as np
import onnxruntime

network = onnxruntime.InferenceSession("model.onnx")
images = np.zeros((3, {height}, {width}), np.float32)  # any number of slices of a stack
(probabilities,) = network.run(None, {{"images": images}})  # (3, {height}, {width}, labels)
labels = probabilities.argmax(-1)
```"""
_WITH_ORBAX = """\
The parameters with Orbax alone:

```python
from pathlib import Path

import orbax.checkpoint as ocp

with ocp.StandardCheckpointer() as reader:
    params = reader.restore(Path("params").resolve())  # nested dict of NumPy arrays
```"""


def _versions(facts: Facts) -> str:
    made_with = ", ".join(f"{name} {version}" for name, version in facts.made_with.items())
    if facts.calling_convention is None:
        about = "A compact bundle: parameters in half precision, without model.stablehlo."
    else:
        about = (
            "model.stablehlo is for deployment on cpu and cuda, not for the archive: it has "
            f"calling convention {facts.calling_convention} of `jax.export`, which an older JAX "
            "may not load, and a newer one promises to load for six months. params/ with the JSON "
            "files is the archive."
        )
    return (
        f"Made with {made_with}.\n\n{about}\n\n"
        "These are the files on which predictions depend, as in manifest.json. jaxseg verifies "
        "them whenever it reads the bundle; this card may be edited."
    )


def _files(facts: Facts) -> Table:
    rows = ((name, f"{size:,}", digest) for name, (size, digest) in facts.files.items())
    return Table(("file", "bytes", "SHA-256"), tuple(rows))
