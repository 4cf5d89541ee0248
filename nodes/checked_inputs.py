"""Refuses values outside the range that an input states.

The host checks what is typed into a node, but not what another node is linked to it with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import signature
from typing import Any

from comfy_api.latest import io

from ..bayesdiff_core.map_checks import check_number, check_whole

__all__ = ["check_inputs", "checked"]


def checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Decorates the `execute` of a node, below `@classmethod`: its inputs are checked first.

    Arguments:
        execute: Takes the class, then the inputs of the node's schema.

    Returns:
        The same function behind the check.

    Raises:
        ValueError: In a call, if a number lies outside its range or a choice is no option.
    """
    names = list(signature(execute).parameters)

    @wraps(execute)
    def run(cls: Any, *args: Any, **kwargs: Any) -> io.NodeOutput:
        schema = cls.define_schema()
        values = {**dict(zip(names[1:], args)), **kwargs}
        if not schema.is_input_list:
            values = {name: [value] for name, value in values.items()}
        check_inputs(schema.inputs, values)
        return execute(cls, *args, **kwargs)

    return run


def check_inputs(inputs: Iterable[Any], values: Mapping[str, Iterable[Any]]) -> None:
    """Refuses values outside the range of their inputs.

    Arguments:
        inputs: Of a schema.
        values: By the id of an input a list of values; others need none.

    Raises:
        ValueError: If a number lies outside its range, or a choice is none of the options.
    """
    for item in inputs:
        name = f"The input {item.id}"
        for value in values.get(item.id, ()):
            if isinstance(item, io.Int.Input):
                check_whole(value, name, item.min, item.max)
            elif isinstance(item, io.Float.Input):
                check_number(value, name, item.min, item.max)
            elif isinstance(item, io.Combo.Input) and value not in item.options:
                options = ", ".join(map(str, item.options))
                raise ValueError(f"{name} must be one of {options}, not {value!r}.")
