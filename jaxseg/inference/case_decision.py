"""Whether a case holds a pathology, decided as the study of the networks found best.

Bounds of confidence belong to the networks that they were fitted with. So a cross-validation leaves
them in the folder of each of its runs, from where an export takes them along.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxseg.anatomy import Anatomy, pair_name
from jaxseg.config.settings import SettingsError
from jaxseg.inference.predictor import presence_rule
from jaxseg.presence import PresenceRule
from jaxseg.runs import workdir
from jaxseg.runs.trained import Trained
from jaxseg.runs.workdir import WorkdirError

FILE = "case_decision.json"


@dataclass(frozen=True)
class Cost:
    """What deciding did to an inner region, by nested folds; nan where not defined.

    Every case is decided with bounds that were fitted to the cases of the other folds.

    Attributes:
      region: in words.
      holding: number of cases that hold it.
      lost: of these, how many were left without although some was predicted.
      predicted: mean DSC over the cases that hold it, as predicted.
      decided: the same after the decision.
      difference: of the two.
      low: lower bound of its 95 % bootstrap interval over cases.
      high: upper bound.
      false: number of cases that lack it, and for which some was predicted.
      removed: of these, how many were left without.
    """

    region: str
    holding: int
    lost: int
    predicted: float
    decided: float
    difference: float
    low: float
    high: float
    false: int
    removed: int


@dataclass(frozen=True)
class CaseDecision:
    """The rule of a study for cases outside of it.

    Attributes:
      study: name of its folder.
      mirror: whether mirror images were averaged.
      pairs: the inclusion pairs in words.
      min_confidence: by pair, fitted to all folds.
      smallest_mm3: by pair, in any training case of the study; None where none holds the region.
      cost: by pair.
    """

    study: str
    mirror: bool
    pairs: tuple[str, ...]
    min_confidence: tuple[float, ...]
    smallest_mm3: tuple[float | None, ...]
    cost: tuple[Cost, ...]

    def json(self) -> str:
        """Content of the file."""
        content = asdict(self)
        content["cost"] = [
            {k: None if v != v else v for k, v in c.items()} for c in content["cost"]
        ]
        return json.dumps(content, indent=2) + "\n"

    @property
    def rule(self) -> PresenceRule:
        """As it is applied."""
        return PresenceRule(self.smallest_mm3, True, self.min_confidence)

    def described(self) -> str:
        """A sentence on where the rule comes from and what it costs."""
        costs = (
            f"{cost.region} {cost.predicted:.3f} to {cost.decided:.3f}, "
            f"{cost.lost} of {cost.holding} lost"
            for cost in self.cost
            if cost.holding
        )
        return (
            f"The rule is that of the study {self.study}. What it costs by its folds, DSC over the "
            f"cases that hold it: {'; '.join(costs) or 'no case holds any'}."
        )


def choose_rule(
    runs: Sequence[Trained],
    *,
    mirror: bool,
    drop_small: bool,
    min_confidence: Sequence[float],
    case_decision: bool,
) -> tuple[PresenceRule, tuple[str, ...]]:
    """The rule of the runs' study, or the one that is given by hand.

    Args:
      runs: one or more, of one label set.
      mirror: whether mirror images are averaged.
      drop_small: as `presence_rule`.
      min_confidence: as `presence_rule`.
      case_decision: whether to take the study's.

    Returns:
      The rule, and sentences on it.

    Raises:
      WorkdirError: a run without a case decision, or with one that cannot be read; runs of
        different studies; as `presence_rule`.
      SettingsError: another checkpoint or mirroring than the bounds were fitted with, or a rule by
        hand beside the study's; as `presence_rule`.
    """
    anatomy = runs[0].anatomy
    if not case_decision:
        rule = presence_rule(runs, drop_small=drop_small, min_confidence=min_confidence)
        return rule, rule.described(anatomy)
    if drop_small or min_confidence:
        raise SettingsError("--case_decision: expected without --drop_small and --min_confidence")
    decision = _read(runs[0])
    for run in runs[1:]:
        if (other := _read(run)).json() != decision.json():  # in which nan equals nan
            raise WorkdirError(
                f"{run.folder / FILE}: of the study {other.study}; expected networks of one study, "
                f"that of {runs[0].folder / FILE}, {decision.study}"
            )
    for run in runs:
        if run.checkpoint != "last" or mirror != decision.mirror:
            raise SettingsError(
                f"--case_decision: the bounds in {run.folder / FILE} hold for --checkpoint=last "
                f"--mirror={decision.mirror}, got {run.checkpoint} and {mirror}"
            )
    return decision.rule, (*decision.rule.described(anatomy), decision.described())


def _read(run: Trained) -> CaseDecision:
    path = run.folder / FILE
    content = workdir.read_json(path, missing="no rule for --case_decision")
    try:
        decision = CaseDecision(
            study=str(content["study"]),
            mirror=bool(content["mirror"]),
            pairs=tuple(content["pairs"]),
            min_confidence=tuple(map(float, content["min_confidence"])),
            smallest_mm3=tuple(None if v is None else float(v) for v in content["smallest_mm3"]),
            cost=tuple(map(_cost, content["cost"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(f"{path}: damaged ({error!r:.80})") from error
    pairs = pair_names(run.anatomy)
    found = {len(decision.pairs), len(decision.min_confidence), len(decision.smallest_mm3)}
    sound = all(0 <= bound <= 1 for bound in decision.min_confidence)
    if decision.pairs != pairs or found != {len(pairs)} or not sound:
        raise WorkdirError(
            f"{path}: expected a min_confidence in 0..1 and a smallest_mm3 for each of "
            f"{', '.join(pairs) or 'no inclusion pair'}"
        )
    return decision


def _cost(noted: Mapping[str, Any]) -> Cost:
    fields: dict[str, Any] = {k: math.nan if v is None else v for k, v in noted.items()}
    return Cost(**fields)


def pair_names(anatomy: Anatomy) -> tuple[str, ...]:
    """The inclusion pairs in words."""
    return tuple(pair_name(anatomy, pair) for pair in anatomy.inclusions)
