"""The one exception for values a user can put right."""

LARGEST = 2**63 - 1
"""Of PyTorch's whole numbers."""


class ArgumentError(ValueError):
    """A value that the caller gave and can correct.

    The message is one line that names the argument, the value and what would be right. Entry points
    print it and exit with 2; everything else is a defect of ours and keeps its traceback.
    """

    def __init__(self, argument: str, value: object, expected: str):
        super().__init__(printable(f"{argument}={value}: {expected}"))
        self.argument = argument
        self.value = value
        self.expected = expected


def printable(text: object) -> str:
    """A text in one line: new lines, bytes that are no text and the like as Python writes them.

    The names of files may hold what a terminal would obey.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def check_choice(argument: str, value: object, choices) -> None:
    """Raise `ArgumentError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ArgumentError(
            argument, value, f"unknown; choose one of {', '.join(map(str, choices))}"
        )


def check_number(
    argument: str, value: object, minimum: float, maximum: float | None = None
) -> None:
    """Raise `ArgumentError` unless ``value`` is a finite number in [minimum, maximum]."""
    _check_python(argument, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    upper = float("inf") if maximum is None else maximum
    if maximum is None and isinstance(value, int) and abs(value) > LARGEST:
        raise ArgumentError(argument, value, "too large a number")
    # A NaN fails the comparison, an infinity is refused by the strict one.
    if not (is_number and minimum <= value <= upper and abs(value) < float("inf")):
        limits = f"at least {minimum:g}" if maximum is None else f"from {minimum:g} to {maximum:g}"
        raise ArgumentError(argument, value, f"give a number {limits}")


def check_positive(argument: str, value: object) -> None:
    """Raise `ArgumentError` unless ``value`` is a finite number above 0."""
    check_number(argument, value, 0)
    if value == 0:
        raise ArgumentError(argument, value, "give a number above 0")


def check_whole(argument: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise `ArgumentError` unless ``value`` is a whole number in [minimum, maximum]."""
    _check_python(argument, value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(argument, value, f"give a whole number of at least {minimum}")
    check_number(argument, value, minimum, maximum)


def _check_python(argument: str, value: object) -> None:
    # As text an np.int64 is like any number, but kernels and files take it for something else.
    if hasattr(value, "item") and not isinstance(value, int | float):
        raise ArgumentError(argument, repr(value), "give a number of Python's, as .item() does")


def check_flag(argument: str, value: object) -> None:
    """Raise `ArgumentError` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise ArgumentError(argument, value, "give true or false")


def check_finite(argument: str, value: object, *results) -> None:
    """Raise `ArgumentError` unless what was made of ``value``, tensors, is finite everywhere."""
    if not all(result.isfinite().all() for result in results):
        raise ArgumentError(argument, value, "gives no picture: numbers that are not finite")
