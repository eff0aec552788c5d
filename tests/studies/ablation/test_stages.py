"""Differences between the stages of Table 1."""

from pathlib import Path

from configs import attention, awce, awce_penalty, baseline, default
from jaxseg.studies.ablation.stages import stage_changes
from jaxseg.studies.schedule import plan_runs

STAGES = {
    stage.get_config().name: stage.get_config().to_dict()
    for stage in (baseline, attention, awce, awce_penalty)
}
CHANGES = stage_changes(default.get_config().to_dict(), STAGES)


def test_stages_differ_in_three_settings_and_their_name():
    assert list(CHANGES) == ["baseline", "attention", "awce", "awce_penalty"]
    table = {
        "baseline": (False, False, 0.0),
        "attention": (True, False, 0.0),
        "awce": (True, True, 0.0),
        "awce_penalty": (True, True, 0.01),
    }
    for stage, (gated, weighted, penalty) in table.items():
        assert CHANGES[stage] == {
            "name": stage,
            "model.attention": gated,
            "loss.weighted": weighted,
            "loss.penalty": penalty,
        }


def test_a_run_of_the_ablation_is_the_run_of_its_config():
    """Table 1's rows can each be had alone, by the stage's own config."""
    config = default.get_config("phantom").to_dict()
    for run in plan_runs(config, CHANGES, Path("study"), seeds=1):
        assert run.settings == STAGES[run.stage]


def test_a_stage_overrides_the_shared_settings():
    shared = awce_penalty.get_config("phantom").to_dict()
    first = plan_runs(shared, CHANGES, Path("study"), seeds=1)[0]
    assert first.settings == STAGES["baseline"]
