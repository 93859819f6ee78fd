"""Packages that lend names of their modules, each loaded when it is first asked for: a command pays for what it calls."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lends(package: str, homes: Mapping[str, tuple[str, ...]]) -> tuple[Callable, Callable, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package (PEP 562), from module -> its names that the package lends.

    A lent name must not be a module's of the package: whoever imports that module would put it in the name's place.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def lend(name: str):
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return lend, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
