"""Shapes of records that others read: one table checks a record here and writes its JSON Schema for everybody else.

A shape is a type, a pattern for the whole text, None, a tuple of alternatives, [shape] for a list, {"key": shape} for an object with
at least these keys, or {str: shape} for an object with any keys; `object` is anything.
"""

import re
from collections.abc import Mapping
from datetime import datetime

HEX64 = re.compile(r"[0-9a-f]{64}")
HEX16 = re.compile(r"[0-9a-f]{16}")
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)  # a moment that exists
NUMBER = (int, float)
DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}


def check_shape(value: object, shape, where: str) -> None:
    """ValueError naming the first part of `value` that is not of its shape."""
    if isinstance(shape, type):  # first: most of a record is of a plain type
        if shape is not object and type(value) is not shape:  # a bool is not an int here
            expect(False, value, where, shape.__name__)
    elif isinstance(shape, tuple):
        if not any(_fits(value, one, where) for one in shape):
            raise ValueError(f"{where} = {short(value)} is not of the expected kind")
    elif isinstance(shape, list):
        expect(isinstance(value, list), value, where, "a list")
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, dict):
        expect(isinstance(value, dict), value, where, "an object")
        for key in value if str in shape else shape:
            expect(key in value, value, f"{where}.{key}", "present")
            check_shape(value[key], shape.get(key, shape.get(str)), f"{where}.{key}")
    elif isinstance(shape, re.Pattern):
        expect(isinstance(value, str) and shape.fullmatch(value), value, where, f"text of the form {shape.pattern}")
        if shape is UTC:
            expect(_is_date(value), value, where, "a moment that exists")
    else:
        expect(value is None, value, where, "null")


def expect(holds: object, value: object, where: str, rule: str) -> None:
    """ValueError in the words of a record's reader unless it `holds`."""
    if not holds:
        raise ValueError(f"{where} = {short(value)}, expected {rule}")


def short(value: object) -> str:
    """A value as a sentence shows it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fits(value, shape, where) -> bool:
    try:
        check_shape(value, shape, where)
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- JSON Schema


def schema_of(shape) -> dict:
    """The JSON Schema of a shape. What goes beyond shapes (hashes that must agree, dates that must exist) it does not say."""
    if isinstance(shape, tuple):
        return _alternatives([schema_of(one) for one in shape])
    if isinstance(shape, list):
        return {"type": "array", "items": schema_of(shape[0])}
    if isinstance(shape, dict):
        return {"type": "object", "additionalProperties": schema_of(shape[str])} if str in shape else schema_of_object(shape)
    if isinstance(shape, re.Pattern):
        return {"type": "string", "pattern": f"^(?:{shape.pattern})$"} | ({"format": "date-time"} if shape is UTC else {})
    if shape is None:
        return {"type": "null"}
    return {} if shape is object else {"type": _TYPES[shape]}


def schema_of_object(shapes: Mapping, meanings: Mapping[str, str] = {}, *, is_closed: bool = False) -> dict:
    """The JSON Schema of an object with these keys, each with what it means where that is said."""
    said = {key: {"description": text} for key, text in meanings.items() if text}
    properties = {key: schema_of(shape) | said.get(key, {}) for key, shape in shapes.items()}
    closed = {"additionalProperties": False} if is_closed else {}
    return {"type": "object", "required": sorted(shapes), "properties": properties} | closed


def _alternatives(schemas: list[dict]) -> dict:
    """One of several: the wider of integer and number, and a list of types where nothing else is said."""
    types = [schema["type"] for schema in schemas if set(schema) == {"type"}]
    if len(types) < len(schemas):
        return {"anyOf": schemas}
    types = [name for name in types if not (name == "integer" and "number" in types)]
    return {"type": types[0] if len(types) == 1 else types}
