"""What is told of a wrong value: one line, whatever the value is."""

import numpy as np
import pytest
import torch

from photostyle.ops.errors import ArgumentError, check_number, check_whole, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b.jpg", "a b.jpg"),
        ("Ünï 日.jpg", "Ünï 日.jpg"),
        ("back\\slash", "back\\slash"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\udcff", "\\udcff"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
        (3, "3"),
    ],
)
def test_printable(text, shown):
    """A terminal obeys none of it, and any encoding of text has it."""
    assert printable(text) == shown


def test_one_line():
    error = ArgumentError("content", "a\nb\x1b[2J.jpg", "no such file")
    assert str(error) == "content=a\\nb\\x1b[2J.jpg: no such file"
    assert error.value == "a\nb\x1b[2J.jpg"


@pytest.mark.parametrize("check", [check_number, check_whole])
@pytest.mark.parametrize("value", [10**30, 2**63])
def test_a_number_larger_than_pytorch_has(check, value):
    with pytest.raises(ArgumentError) as error:
        check("weight", value, 0)
    assert str(error.value) == f"weight={value}: too large a number"
    check("weight", 2**63 - 1, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None, [1], -1])
def test_what_is_no_number(value):
    with pytest.raises(ArgumentError) as error:
        check_number("weight", value, 0)
    assert str(error.value) == f"weight={value}: give a number at least 0"


@pytest.mark.parametrize("check", [check_number, check_whole])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int64(3), "np.int64(3)"),
        (np.float32(3), "np.float32(3.0)"),
        (np.bool_(True), "np.True_"),
        (np.array(3), "array(3)"),
        (torch.tensor(3), "tensor(3)"),
    ],
    ids=repr,
)
def test_a_number_that_is_not_of_python(check, value, shown):
    with pytest.raises(ArgumentError) as error:
        check("radius", value, 0)
    assert str(error.value) == f"radius={shown}: give a number of Python's, as .item() does"


def test_an_np_float64_is_a_float():
    check_number("weight", np.float64(0.5), 0)
