"""What the checks under the exercises share: an answer that is missing or breaks gets one clear sentence.

    mine = checks.function("labels_needed", globals())      # the learner's function
    budget = checks.number(checks.value("budget", globals()), "budget")

Every fault of the learner's is an AssertionError; where their own code broke, its traceback stays above it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def value(name: str, names: Mapping[str, Any]) -> Any:
    """The learner's answer called `name`. names: where it is looked up, `globals()`.

    Raises AssertionError if it is not there, None or an ellipsis.
    """
    if names.get(name) is None or names[name] is ...:
        raise AssertionError(f"{name} has no value yet: write your answer into the cell above, run it, then run this check again")
    return names[name]


def function(name: str, names: Mapping[str, Any], *, gives: str | None = "", hints: Mapping[str, str] | None = None) -> Callable:
    """The learner's function called `name`, wrapped so that whatever goes wrong in it is said in one sentence.

    gives: what it should return, for the message where it returns None; None if None is an answer. hints: words of an
    error -> what to do about it. Raises AssertionError if the function is not there; the wrapper raises it for
    everything that the function raises, except for AssertionErrors, which say enough.
    """
    if not callable(names.get(name)):
        raise AssertionError(f"{name} is not there yet: write the function in the cell above, run it, then run this check again")

    def wrapped(*arguments, **options):
        try:
            answer = names[name](*arguments, **options)
        except AssertionError:
            raise
        except NotImplementedError as error:
            if str(error):
                raise AssertionError(f"{name} stops: {error}") from error
            raise AssertionError(f"{name} is not written yet: put your code in place of `raise NotImplementedError()`") from None
        except Exception as error:
            what = next((todo for words, todo in (hints or {}).items() if words in str(error)), "the line is marked above")
            raise AssertionError(f"{name} breaks off with {type(error).__name__} ({_first_line(error)}): {what}") from error
        if answer is None and gives is not None:
            raise AssertionError(f"{name} returns nothing: end it with `return` and {gives or 'your answer'}")
        return answer

    return wrapped


def number(answer: Any, what: str) -> float:
    """The answer as a float: a plain number, or numpy's or torch's, also as an array of one element.

    what: the answer's name in the message. Raises AssertionError for anything else.
    """
    kind = type(answer).__name__
    if isinstance(answer, str):
        raise AssertionError(f"{what} must be a number, not the text {answer!r}: leave out the quotes")
    if kind in ("bool", "bool_", "NoneType"):
        raise AssertionError(f"{what} must be a number, not {answer}")
    shape = getattr(answer, "shape", ())
    if any(side != 1 for side in shape):
        raise AssertionError(f"{what} must be one number, not an array of shape {tuple(shape)}")
    try:
        return float(answer.item() if hasattr(answer, "item") else answer)
    except (TypeError, ValueError):
        raise AssertionError(f"{what} must be a number, not a {kind}") from None


def truth(answer: Any, what: str) -> bool:
    """The answer as True or False; numpy's and torch's count too. what: its name in the message.

    Raises AssertionError for anything else.
    """
    plain = answer.item() if hasattr(answer, "item") and all(side == 1 for side in getattr(answer, "shape", ())) else answer
    if isinstance(plain, bool) or (isinstance(plain, int) and plain in (0, 1)):
        return bool(plain)
    shape = f"an array of shape {tuple(answer.shape)}" if getattr(answer, "shape", ()) else repr(answer)
    raise AssertionError(f"{what} must be one True or False, not {shape}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:120]
