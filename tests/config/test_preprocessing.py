"""The preprocessing that a config describes."""

from configs import best, default
from jaxseg.config.preprocessing import preprocessing
from jaxseg.config.settings import replace


def test_every_field_is_read():
    changes = {
        "grid.size": [96, 64],
        "grid.spacing": 1.4,
        "grid.center": [0.5, 0.25],
        "intensity.method": "percentile",
        "intensity.low": 2.0,
        "intensity.high": 98.0,
        "intensity.bias_field": True,
    }
    found = preprocessing(replace(default.get_config("emidec").to_dict(), changes))
    grid = found.grid
    assert (grid.size, grid.spacing, grid.center) == ((96, 64), 1.4, (0.5, 0.25))
    assert (found.num_labels, found.normalization) == (5, "percentile")
    assert (found.percentiles, found.bias_field) == ((2.0, 98.0), True)


def test_no_spacing_and_no_center():
    settings = replace(best.get_config("emidec").to_dict(), {"grid.spacing": 0.0})
    grid = preprocessing(settings).grid
    assert (grid.spacing, grid.center) == (None, None)
