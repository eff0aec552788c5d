"""The rule on pathology as fitted by a cross-validation: how much is predicted, and when any.

Its factor and bounds are valid only for the networks that they were fitted with. A cross-validation
therefore stores them in each of its run folders, and an export copies them into the bundle.
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
from jaxseg.runs.files import WorkdirError, read_json
from jaxseg.runs.trained import Trained

FILE = "case_decision.json"


@dataclass(frozen=True)
class Cost:
    """Effect of the rule on an inner region, by nested folds; nan where undefined.

    Every case is decided with bounds fitted to the cases of the other folds.

    Attributes:
      region: description of the region.
      holding: number of cases in which the region is present.
      lost: number of these cases whose prediction the rule removed.
      predicted: mean DSC over the cases in which the region is present, before the rule.
      decided: the same mean after the rule.
      difference: `decided` minus `predicted`.
      low: lower bound of the 95 % bootstrap interval of the difference, over cases.
      high: upper bound of that interval.
      false: number of cases without the region for which some was predicted.
      removed: number of these cases whose prediction the rule removed.
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
      study: name of the study's folder.
      mirror: whether mirror images were averaged.
      pairs: descriptions of the inclusion pairs.
      min_dice: bounds of the expected DSC by pair, fitted to all folds.
      smallest_mm3: smallest volume in the study's training cases, by pair; None where the
        region is present in no case.
      odds: factor of the odds of pathology, fitted to all folds by `fit_odds`.
      cost: effect of the rule, by pair.
    """

    study: str
    mirror: bool
    pairs: tuple[str, ...]
    min_dice: tuple[float, ...]
    smallest_mm3: tuple[float | None, ...]
    odds: float
    cost: tuple[Cost, ...]

    def json(self) -> str:
        """Format the content of the file."""
        content = asdict(self)
        content["cost"] = [
            {k: None if v != v else v for k, v in c.items()} for c in content["cost"]
        ]
        return json.dumps(content, indent=2) + "\n"

    @property
    def rule(self) -> PresenceRule:
        """The rule in the form in which it is applied."""
        return PresenceRule(self.smallest_mm3, True, self.min_dice, self.odds)

    @property
    def changes_anything(self) -> bool:
        """Whether the factor is not 1 or a bound is above 0, so that the rule is of use."""
        return any(self.min_dice) or self.odds != 1

    def described(self) -> str:
        """Return a sentence on the origin and the cost of the rule."""
        costs = (
            f"{cost.region} {cost.predicted:.3f} to {cost.decided:.3f}, "
            f"{cost.lost} of {cost.holding} lost"
            for cost in self.cost
            if cost.holding
        )
        return (
            f"The rule is that of the study {self.study}. Its effect in that study, DSC over the "
            f"cases with the pathology: {'; '.join(costs) or 'no case has any'}."
        )


def choose_rule(
    runs: Sequence[Trained],
    *,
    mirror: bool,
    drop_small: bool,
    min_dice: Sequence[float],
    case_decision: bool,
    odds: float = 1.0,
) -> tuple[PresenceRule, tuple[str, ...]]:
    """Select the rule of the runs' study, or the one given by the arguments.

    Args:
      runs: one or more runs of one label set.
      mirror: whether mirror images are averaged.
      drop_small: as in `presence_rule`.
      min_dice: as in `presence_rule`.
      case_decision: whether to use the study's rule.
      odds: as in `presence_rule`.

    Returns:
      The rule, and sentences that describe it.

    Raises:
      WorkdirError: if a run has no readable case decision, or if the runs belong to different
        studies; also as in `presence_rule`.
      SettingsError: if the rule was fitted with another checkpoint or mirroring, or if
        `case_decision` is combined with another rule; also as in `presence_rule`.
    """
    anatomy = runs[0].anatomy
    if not case_decision:
        rule = presence_rule(runs, drop_small=drop_small, min_dice=min_dice, odds=odds)
        return rule, rule.described(anatomy)
    if drop_small or min_dice or odds != 1:
        raise SettingsError(
            "--case_decision: expected without --drop_small, --min_dice and --pathology_odds"
        )
    decision = read(runs[0])
    for run in runs[1:]:
        if (other := read(run)).json() != decision.json():  # in JSON, nan equals nan
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


def read(run: Trained) -> CaseDecision:
    """Read the rule of a run's study.

    Raises:
      WorkdirError: there is none, or it is damaged or of an earlier version.
    """
    path = run.folder / FILE
    content = read_json(path, missing="no rule for --case_decision")
    if "odds" not in content:
        raise WorkdirError(
            f"{path}: written by an earlier version, with another rule; expected the present one, "
            "which the cross-validation writes if it is repeated"
        )
    try:
        decision = CaseDecision(
            study=str(content["study"]),
            mirror=bool(content["mirror"]),
            pairs=tuple(content["pairs"]),
            min_dice=tuple(map(float, content["min_dice"])),
            smallest_mm3=tuple(None if v is None else float(v) for v in content["smallest_mm3"]),
            odds=float(content["odds"]),
            cost=tuple(map(_cost, content["cost"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(f"{path}: damaged ({error!r:.80})") from error
    pairs = pair_names(run.anatomy)
    found = {len(decision.pairs), len(decision.min_dice), len(decision.smallest_mm3)}
    sound = all(0 <= bound <= 1 for bound in decision.min_dice) and decision.odds > 0
    if decision.pairs != pairs or found != {len(pairs)} or not sound:
        raise WorkdirError(
            f"{path}: expected odds above 0, and a min_dice in 0..1 and a smallest_mm3 for each of "
            f"{', '.join(pairs) or 'no inclusion pair'}"
        )
    return decision


def _cost(noted: Mapping[str, Any]) -> Cost:
    fields: dict[str, Any] = {k: math.nan if v is None else v for k, v in noted.items()}
    return Cost(**fields)


def pair_names(anatomy: Anatomy) -> tuple[str, ...]:
    """Return descriptions of the inclusion pairs."""
    return tuple(pair_name(anatomy, pair) for pair in anatomy.inclusions)
