"""One number for all that shapes a result: weights to the bit, settings, the code of what a user wrote."""

import dataclasses
import dis
import functools
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

import torch
from torch import Tensor, nn

Part = str | bytes
PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype)
PASSING = ("training", "_is_full_backward_hook")  # how a module is used, not what it is


def fingerprint(*things: object) -> str | None:
    """The SHA-256 of things that shape a result, or None if one of them cannot be told from all others.

    Plain values, containers, tensors, dataclasses and partials count by their content; a module by its
    structure, weights, buffers and the plain attributes of its parts; a function by its bytecode and the
    values that it takes from around itself; a class by the bytecode of its methods. Functions and classes of
    installed packages count by their names, so a new release of one is not noticed. Anything else, such as an
    open file, cannot be recognised again, and the answer is None.

    Args:
        things: What to fingerprint.

    Returns:
        64 hexadecimal digits, the same on every device; those of bytecode differ between versions of Python.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(things, ()):
            digest.update(part.encode() if isinstance(part, str) else part)
            digest.update(b"\0")
    except _Unrecognised:
        return None
    return digest.hexdigest()


class _Unrecognised(Exception):
    pass


def _parts(thing: object, within: tuple[int, ...]) -> Iterator[Part]:
    """A thing as strings and bytes; `within` has the identities of what is being described around it."""
    if id(thing) in within:  # as in a function that calls itself
        return
    within = (*within, id(thing))
    match thing:
        case _ if isinstance(thing, PLAIN):
            yield f"{type(thing).__name__} {thing!r}"
        case tuple() | list():
            yield f"{type(thing).__name__} {len(thing)}"
            for item in thing:
                yield from _parts(item, within)
        case dict():
            yield from _parts(tuple(thing.items()), within)
        case Tensor():
            yield from _tensor(thing)
        case nn.Module():
            yield from _module(thing, within)
        case functools.partial():
            yield from _parts(("partial", thing.func, thing.args, thing.keywords), within)
        case ModuleType():
            yield f"module {thing.__name__}"
        case type() | FunctionType() | BuiltinFunctionType():
            yield f"{thing.__module__}.{thing.__qualname__}"
            if not isinstance(thing, BuiltinFunctionType) and not _installed(thing.__module__):
                yield from _class(thing, within) if isinstance(thing, type) else _function(thing, within)
        case _ if dataclasses.is_dataclass(thing):
            compared = [field.name for field in dataclasses.fields(thing) if field.compare]
            yield from _parts((type(thing), [(name, getattr(thing, name)) for name in compared]), within)
        case _:
            raise _Unrecognised


def _tensor(tensor: Tensor) -> Iterator[Part]:
    yield f"tensor {tensor.dtype} {tuple(tensor.shape)}"
    yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _module(module: nn.Module, within: tuple[int, ...]) -> Iterator[Part]:
    yield re.sub(r" at 0x[0-9a-f]+", "", repr(module))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        yield name
        yield from _tensor(tensor)
    for name, part in module.named_modules():
        kept = {key: value for key, value in vars(part).items() if _is_plain(value) and key not in PASSING}
        yield f"{name} {kept!r}"
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        yield from _parts(kind, within)


def _is_plain(value: object) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))


def _class(kind: type, within: tuple[int, ...]) -> Iterator[Part]:
    for name, member in vars(kind).items():
        if name in ("forward", "__call__") and isinstance(member, FunctionType):
            yield from _function(member, within)
        elif isinstance(member, FunctionType):
            yield from _code(member.__code__)
    for base in kind.__bases__:
        yield from _parts(base, within)


def _function(function: FunctionType, within: tuple[int, ...]) -> Iterator[Part]:
    yield from _code(function.__code__)
    yield from _parts((function.__defaults__, function.__kwdefaults__), within)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, within)
    for name in sorted(_global_names(function.__code__) & set(function.__globals__)):
        yield name
        yield from _parts(function.__globals__[name], within)


def _code(code: CodeType) -> Iterator[Part]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:  # a frozen set of strings has another order in each process
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _global_names(code: CodeType) -> set[str]:
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return names.union(*(_global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _installed(module: str) -> bool:
    """Whether a module is grafeat's, Python's own or an installed package's."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None:
        return module in sys.builtin_module_names
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return module.split(".")[0] == "grafeat" or any(Path(file).is_relative_to(folder) for folder in folders)
