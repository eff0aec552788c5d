"""Select the cases that a run was not trained on, identified by their images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxseg.runs import provenance
from jaxseg.runs.data_file import STARTED_FROM
from jaxseg.runs.trained import Trained

SEEN = "seen by the run this one started from"


@dataclass(frozen=True)
class Verdict:
    """The decision on whether a case is scored.

    Attributes:
      left_out: reason why it is not scored; None if it is.
      own: whether it is a validation case of the run, on which the best checkpoint was chosen.
      slices: indices of the scored slices; None for all.
    """

    left_out: str | None = None
    own: bool = False
    slices: Sequence[int] | None = None


def seen_before(data: Mapping[str, Any]) -> set[str]:
    """Return the digests of the images that a run's initial parameters were trained on.

    Args:
      data: data of the run, as returned by `jaxseg.runs.data_file.read_data`.
    """
    return set(data.get(STARTED_FROM, {}).get("seen", ()))


def seen(data: Mapping[str, Any]) -> set[str]:
    """Return the digests of all images that a run's parameters were trained on."""
    return seen_before(data) | {data["digests"][n]["image"] for n in data["training"]["cases"]}


def validated_though_seen(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the validation cases in `seen_before`, whose scores are optimistic."""
    before = seen_before(data)
    return [n for n in data["validation"]["cases"] if data["digests"][n]["image"] in before]


def some(names: Sequence[str]) -> str:
    """Format the first three names and the number of the others."""
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def judge(run: Trained, name: str, image: str) -> Verdict:
    """Decide whether a case is scored.

    Args:
      run: run whose `data.json` is complete, as checked by `jaxseg.runs.trained.check_data`.
      name: name of the case, for the reason.
      image: digest of its image.
    """
    known = [other for other, found in run.data["digests"].items() if found["image"] == image]
    if not known:
        return Verdict(SEEN if image in seen_before(run.data) else None)
    verdicts = [judge_own(run, other) for other in known]
    verdict = next((v for v in verdicts if v.left_out), verdicts[0])
    if verdict.left_out and name not in known:
        return Verdict(f"{verdict.left_out}, as {known[0]}")
    return verdict


def judge_own(run: Trained, name: str) -> Verdict:
    """Decide whether one of the run's own cases is scored, by its name in the run."""
    verdict = _by_split(run, name)
    if verdict.left_out is None and run.data["digests"][name]["image"] in seen_before(run.data):
        return Verdict(SEEN)
    return verdict


def _by_split(run: Trained, name: str) -> Verdict:
    training, validation = run.data["training"], run.data["validation"]
    if run.setup.split.kind == "slice":
        held_out = validation.get("held_out", {}).get(name)
        if held_out is None:
            return Verdict("trained on, with all of its slices")
        return Verdict(own=True, slices=held_out)
    return Verdict("trained on") if name in training["cases"] else Verdict(own=True)


def notes(run: Trained, scored: Mapping[str, Verdict], renamed: Sequence[str]) -> tuple[str, ...]:
    """Return sentences on the origin of the scored cases, for readers of the scores.

    Args:
      run: the run that is scored.
      scored: verdicts on the scored cases, by name; at least one.
      renamed: names of scored cases that are also names of the run's cases, with another image.
    """
    split, own = run.setup.split.kind, [v for v in scored.values() if v.own]
    others = len(scored) - len(own)
    parts = [f"{len(own)} held out by the run (split by {split})"] * bool(own)
    parts += [f"{others} not among the run's cases"] * bool(others)
    sentences = [
        f"{len(scored)} cases are scored, identified by their images: {' and '.join(parts)}."
    ]
    if renamed:
        sentences.append(
            "These cases have names of the run's cases but other images, and count as other "
            f"hearts: {', '.join(renamed)}."
        )
    if own and split == "slice":
        held = sum(len(v.slices or ()) for v in own)
        sentences.append(
            f"Only the {held} held-out slices of these {len(own)} cases are scored, also in 3D, "
            "because the run was trained on the others. These 3D scores do not compare with "
            "scores of whole cases; for those, train with data.split=case."
        )
    if own and run.checkpoint == "best":
        which = f"{len(own)} of these cases" if others else "these slices"
        sentences.append(f"The checkpoint was chosen on {which}, so its scores are optimistic.")
    sentences += provenance.started_from(run.data)
    if run.data.get("synthetic"):
        sentences.append(
            "The run was trained on synthetic cases, jaxseg's phantom: its scores do not apply to "
            "patients."
        )
    return tuple(sentences)
