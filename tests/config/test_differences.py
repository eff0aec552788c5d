"""Differences of two configs in the network and in the training images."""

import re

from configs import awce, baseline
from jaxseg.config.differences import condition_differences, network_differences
from jaxseg.config.settings import replace


def changed(module, **changes):
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return replace(module.get_config().to_dict(), fields)


def test_the_same_network_under_the_same_conditions():
    ours, theirs = changed(awce), changed(awce, train__epochs=7, grid__size=[64, 64], seed=3)
    assert network_differences(theirs, ours) == condition_differences(theirs, ours) == []


def test_differences_name_the_field_and_both_values():
    theirs = changed(awce, model__width=4, balance__width=8, grid__size=[32, 32])
    ours = changed(awce, balance__method="minimize")
    first, second = network_differences(theirs, ours)
    assert re.search(r"model\.width 4\b.*\b8\b", first)
    assert re.search(r"balance\.width 8\b.*\b16\b", second)
    first, second = condition_differences(theirs, ours)
    assert re.search(r"grid\.size \[32, 32\].*\[64, 64\]", first)
    assert re.search(r"balance\.method adversarial.*minimize", second)


def test_context_may_be_added_but_not_removed():
    without, context = changed(awce), changed(awce, model__context=True)
    assert network_differences(without, context) == network_differences(context, context) == []
    (line,) = network_differences(context, without)
    assert line == "model.context True there and False here"


def test_a_generator_that_only_one_has_is_ignored():
    theirs, ours = changed(awce, balance__width=8, balance__method="minimize"), changed(baseline)
    (line,) = network_differences(theirs, ours)
    assert line.startswith("model.attention ")
    assert condition_differences(theirs, ours) == []
