"""Whether a row of a file has the shape that its type in `rows` says: files come from elsewhere."""

import math
from types import UnionType
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict


def fault(value: object, expected: Any) -> str | None:
    """What is wrong with a value, beginning with where in it; None: nothing.

    `expected` is a type as `rows` writes them: TypedDicts, lists, unions, literals and plain ones.
    Fields that a TypedDict does not name are as they like. A number is finite, and no truth value.
    """
    if is_typeddict(expected):
        return _fault_in_fields(value, expected)
    origin = get_origin(expected)
    if origin is list:
        return _fault_in_list(value, get_args(expected)[0])
    if origin is UnionType:
        faults = [fault(value, option) for option in get_args(expected)]
        return None if None in faults else f" is not {_name(expected)}"
    return None if _fits(value, expected) else f" is not {_name(expected)}"


def _fault_in_fields(value: object, expected: Any) -> str | None:
    """The same of an object that should have a TypedDict's fields."""
    if not isinstance(value, dict):
        return " is not an object"
    for name, kind in get_type_hints(expected, include_extras=True).items():
        optional = get_origin(kind) is NotRequired
        if optional:
            (kind,) = get_args(kind)
        if name not in value:
            if optional:
                continue
            return f": no {name}"
        found = fault(value[name], kind)
        if found is not None:
            return f", {name}{found}"
    return None


def _fault_in_list(value: object, kind: Any) -> str | None:
    """The same of a list whose items should be of one kind."""
    if not isinstance(value, list):
        return " is not a list"
    for place, item in enumerate(value):
        found = fault(item, kind)
        if found is not None:
            return f"[{place}]{found}"
    return None


def _fits(value: object, expected: Any) -> bool:
    """Whether a value is of a type that holds no other."""
    if expected is Any:
        return True
    if get_origin(expected) is Literal:
        return value in get_args(expected)
    if get_origin(expected) is dict:
        return isinstance(value, dict)
    if expected is None or expected is type(None):
        return value is None
    if expected in (int, float) and isinstance(value, bool):
        return False
    if expected is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, expected)


def _name(expected: Any) -> str:
    """A type in words."""
    if get_origin(expected) is Literal:
        return " or ".join(map(str, get_args(expected)))
    if get_origin(expected) is UnionType:
        return " or ".join(map(_name, get_args(expected)))
    names = {str: "text", int: "a whole number", float: "a number", type(None): "null"}
    return names.get(expected, "an object")
