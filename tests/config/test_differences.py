"""What two configs say differently of a network, and of the images that it was trained on."""

from configs import awce, baseline
from jaxseg.config.differences import condition_differences, network_differences
from jaxseg.config.settings import replace


def changed(module, **changes):
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return replace(module.get_config().to_dict(), fields)


def test_the_same_network_under_the_same_conditions():
    ours, theirs = changed(awce), changed(awce, train__epochs=7, grid__size=[64, 64], seed=3)
    assert network_differences(theirs, ours) == condition_differences(theirs, ours) == []


def test_differences_are_named_with_both_values():
    theirs = changed(awce, model__width=4, balance__width=8, grid__size=[32, 32])
    ours = changed(awce, balance__method="minimize")
    assert network_differences(theirs, ours) == [
        "model.width 4 there and 8 here",
        "balance.width 8 there and 16 here",
    ]
    assert condition_differences(theirs, ours) == [
        "grid.size [32, 32] there and [64, 64] here",
        "balance.method adversarial there and minimize here",
    ]


def test_a_generator_that_one_of_them_lacks_does_not_count():
    theirs, ours = changed(awce, balance__width=8, balance__method="minimize"), changed(baseline)
    assert network_differences(theirs, ours) == ["model.attention True there and False here"]
    assert condition_differences(theirs, ours) == []
