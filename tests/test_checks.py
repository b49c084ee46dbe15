"""tlutils.checks: answers in any numeric form are taken, everything else is refused in one sentence."""
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from tlutils import checks


@pytest.mark.parametrize("names", [{}, {"budget": None}, {"budget": ...}], ids=["missing", "None", "ellipsis"])
def test_a_missing_value_says_what_to_do(names):
    with pytest.raises(AssertionError, match="budget has no value yet: write your answer into the cell above"):
        checks.value("budget", names)


def test_a_value_is_handed_on_even_if_it_is_zero():
    assert checks.value("flip", {"flip": 0}) == 0


@pytest.mark.parametrize("answer", [5, 5.0, np.int64(5), np.float32(5), torch.tensor(5), torch.tensor([5.0]), np.array([[5]]), Fraction(5)])
def test_numbers_of_every_kind_are_numbers(answer):
    assert checks.number(answer, "budget") == 5 and type(checks.number(answer, "budget")) is float


@pytest.mark.parametrize("answer, message", [
    ("5", "budget must be a number, not the text '5': leave out the quotes"), (True, "must be a number, not True"),
    (np.bool_(True), "must be a number, not True"), (None, "must be a number, not None"),
    (np.zeros(400), r"must be one number, not an array of shape \(400,\)"), (torch.zeros(2, 3), r"shape \(2, 3\)"),
    ([5], "must be a number, not a list"), ({}, "not a dict"), (1j, "not a complex"), (lambda: 5, "not a function")])
def test_what_is_no_number_is_refused(answer, message):
    with pytest.raises(AssertionError, match=message):
        checks.number(answer, "budget")


@pytest.mark.parametrize("answer", [True, np.True_, torch.tensor(True), 1, np.int64(1), np.array([True])])
def test_truths_of_every_kind(answer):
    assert checks.truth(answer, "it") is True and checks.truth(type(answer)(0) if isinstance(answer, int) else False, "it") is False


@pytest.mark.parametrize("answer, message", [(np.array([True, False]), r"not an array of shape \(2,\)"), ("yes", "not 'yes'"),
                                             (0.3, "not 0.3"), (2, "not 2"), (None, "not None"), ([], r"not \[\]")])
def test_what_is_neither_true_nor_false_is_refused(answer, message):
    with pytest.raises(AssertionError, match=f"it must be one True or False, {message}"):
        checks.truth(answer, "it")


def test_a_function_is_called_as_it_is():
    assert checks.function("add", {"add": lambda a, b=1: a + b})(2, b=3) == 5


@pytest.mark.parametrize("names", [{}, {"probe": 3}])
def test_a_missing_function_says_what_to_do(names):
    with pytest.raises(AssertionError, match="probe is not there yet: write the function in the cell above"):
        checks.function("probe", names)


def raising(error):
    def probe():
        raise error
    return {"probe": probe}


@pytest.mark.parametrize("error, message", [
    (NotImplementedError(), "probe is not written yet: put your code in place of"),
    (NotImplementedError("no such kernel"), "probe stops: no such kernel"),
    (TypeError("bad\nlong story"), r"probe breaks off with TypeError \(bad\): the line is marked above"),
    (ValueError(), r"probe breaks off with ValueError \(no message\)"),
    (RuntimeError("this tensor requires grad"), r"probe breaks off with RuntimeError \(.*\): use no_grad"),
    (AssertionError("my own words"), "^my own words$")])
def test_whatever_breaks_is_said_in_one_sentence(error, message):
    with pytest.raises(AssertionError, match=message):
        checks.function("probe", raising(error), hints={"requires grad": "use no_grad"})()


def test_the_learners_own_error_stays_visible():
    with pytest.raises(AssertionError) as caught:
        checks.function("probe", raising(KeyError("x")))()
    assert isinstance(caught.value.__cause__, KeyError)


def test_nothing_returned():
    nothing = {"probe": lambda: None}
    with pytest.raises(AssertionError, match="probe returns nothing: end it with `return` and the share$"):
        checks.function("probe", nothing, gives="the share")()
    assert checks.function("probe", nothing, gives=None)() is None
