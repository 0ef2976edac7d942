"""One number for all that shapes a result: weights to the bit, settings, the code of what a user wrote."""

import copyreg
import dataclasses
import dis
import functools
import hashlib
import inspect
from collections import deque
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from grafeat.backbones.installed import installed, is_named, is_patch

PLAIN = {type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented)}
PLAIN |= {torch.dtype, torch.layout, torch.memory_format}
# How a module is used, not what it is. Weights, parts and hooks of the forward pass are among these; they count apart.
PASSING = {*vars(nn.Module()), "_compiled_call_impl"}
ORIGIN = {"pretrained_cfg", "default_cfg"}  # of timm: where weights came from, with paths of one machine
REMARKS = {  # what Python notes of a class beside its code
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__type_params__"),
    *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__"),
    *("__dataclass_fields__", "__dataclass_params__"),
}
GLOBAL_READS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}


def fingerprint(*things: object) -> str | None:
    """The SHA-256 of things that shape a result, or None if one of them cannot be told from all others.

    Plain values, containers, arrays and tensors count by their content, dataclasses by the fields that they compare,
    other objects by what Python would pickle of them. A module counts by its class, weights, buffers, parts, forward
    hooks and all other attributes. A function counts by its bytecode and by what it takes from around itself; a class
    by its members. What an installed package has under a name counts by that name, so a new release of it is not
    noticed; nor are devices, what a function imports while it runs, and caches in modules of packages. Anything else,
    such as an open file, cannot be recognised again, and the answer is None: `unrecognised` says where it is.

    Args:
        things: What to fingerprint.

    Returns:
        64 hexadecimal digits, the same on every device; those of bytecode differ between versions of Python.
    """
    try:
        return _Description().of(("", things)).hex()
    except _Unrecognised:
        return None


def unrecognised(**things: object) -> str | None:
    """The first of some things that has no fingerprint, such as "module.0.log, a TextIOWrapper"; None if all have one.

    Args:
        things: What to look through, under the names to call it by.
    """
    try:
        _Description().of(*things.items())
    except _Unrecognised as found:
        return str(found)
    return None


class _Unrecognised(Exception):
    """Says where the thing is, and of which class."""

    def __init__(self, path: str, thing: object) -> None:
        super().__init__(f"{path}, a {type(thing).__qualname__}")


class _Description:
    """Things as one stream of bytes: each object is described once, and its number stands wherever it comes.

    Plain values, tuples, arrays and tensors have no number: whether two are one object may change as a module moves.

    Args:
        numbers: Objects that have one already, by identity. They are held, so that no identity is given anew.
    """

    def __init__(self, numbers: dict[int, tuple[int, object]] | None = None) -> None:
        self._digest = hashlib.sha256()
        self._numbers = dict(numbers or {})
        self._waiting: deque[tuple[str, object]] = deque()

    def of(self, *things: tuple[str, object]) -> bytes:
        """The digest of things, each with the path at which it is."""
        for path, thing in things:
            self._add(path, thing)
        while self._waiting:
            self._describe(*self._waiting.popleft())
        return self._digest.digest()

    def _write(self, part: str | bytes) -> None:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        self._digest.update(b"%d:" % len(content))
        self._digest.update(content)

    def _add(self, path: str, thing: object) -> None:
        """Writes a plain thing, or the number of an object, which is described later if it is new."""
        if type(thing) in PLAIN:
            self._write(f"{type(thing).__name__} {thing!r}")
        elif type(thing) is tuple:
            self._write(f"tuple {len(thing)}")
            for index, item in enumerate(thing):
                self._add(f"{path}[{index}]", item)
        elif type(thing) is Tensor or type(thing) is nn.Parameter:
            self._tensor(path, thing)
        elif type(thing) is np.ndarray or isinstance(thing, np.generic):
            self._array(path, np.asarray(thing))
        elif isinstance(thing, torch.device):
            self._write("device")
        else:
            if id(thing) not in self._numbers:
                self._numbers[id(thing)] = len(self._numbers), thing
                self._waiting.append((path, thing))
            self._write(f"object {self._numbers[id(thing)][0]}")

    def _add_all(self, path: str, named: Iterable[tuple[str, object]]) -> None:
        listed = list(named)
        self._write(f"names {len(listed)}")
        for name, thing in listed:
            self._write(name)
            self._add(f"{path}.{name}", thing)

    def _tensor(self, path: str, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
            raise _Unrecognised(path, tensor)
        self._write(f"tensor {tensor.dtype} {tuple(tensor.shape)}")
        whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        self._write(whole.reshape(-1).view(torch.uint8).numpy().tobytes())

    def _array(self, path: str, array: np.ndarray) -> None:
        self._write(f"array {array.dtype!r} {array.shape}")
        if array.dtype.hasobject:
            self._add(path, array.tolist())
        else:
            self._write(array.tobytes())

    def _describe(self, path: str, thing: object) -> None:
        kind = type(thing)
        self._add(f"{path}.__class__", kind)
        match thing:
            case nn.Module():
                self._module(path, thing)
            case type():
                self._class(path, thing)
            case FunctionType():
                self._function(path, thing)
            case BuiltinFunctionType():
                self._write(f"{thing.__module__}.{thing.__qualname__}")
                self._add(path, None if is_named(thing) else thing.__self__)
            case MethodType():
                self._add(path, (thing.__func__, thing.__self__))
            case ModuleType() if installed(thing.__name__):
                self._write(thing.__name__)
            case staticmethod() | classmethod():
                self._add(path, thing.__func__)
            case property():
                self._add(path, (thing.fget, thing.fset, thing.fdel))
            case functools.cached_property():
                self._add(path, thing.func)
            case fx.Graph():  # by the code that it stands for: it notes paths of one machine beside that
                made = thing.python_code("self")
                self._write(made.src)
                self._add_all(path, sorted(made.globals.items()))
            case RemovableHandle():
                pass  # the hook counts where it hangs; its handle has another number in each process
            case _ if kind is object or isinstance(thing, Iterator | ModuleType):
                raise _Unrecognised(path, thing)
            case set() | frozenset() if kind in (set, frozenset):  # their order differs between processes
                self._write(b"".join(sorted(_Description(self._numbers).of((path, item)) for item in thing)))
            case _ if dataclasses.is_dataclass(thing):
                fields = {field.name: field.compare for field in dataclasses.fields(thing)}
                state = {name: getattr(thing, name, None) for name, compared in fields.items() if compared}
                beside = getattr(thing, "__dict__", {})
                self._state(path, kind, state | {name: beside[name] for name in beside.keys() - fields.keys()})
            case _:
                self._pickled(path, thing)

    def _pickled(self, path: str, thing: object) -> None:
        """An object as Python pickles and copies it; a backbone has a copy of its module, so it holds no more."""
        reduce = copyreg.dispatch_table.get(type(thing))
        try:
            made: Any = reduce(thing) if reduce else thing.__reduce_ex__(4)
        except Exception as error:  # whatever a class raises to say that it cannot be pickled
            raise _Unrecognised(path, thing) from error
        if isinstance(made, str):  # to be found under its name
            beside = getattr(thing, "__dict__", None)
            if not beside and not is_named(thing):
                raise _Unrecognised(path, thing)
            made = (made, beside)
        maker, arguments, state, items, pairs, setter = (*made, *[None] * 4)[:6]
        self._add(path, (maker, arguments, setter))
        self._add(path, tuple(items or ()))
        listed = list(pairs or ())
        self._add(path, tuple(key for key, _ in listed))
        for key, value in listed:
            self._add(f"{path}[{key!r}]", value)
        if isinstance(state, dict) and all(isinstance(name, str) for name in state):
            self._state(path, type(thing), state)
        else:
            self._add(path, state)

    def _state(self, path: str, kind: type, state: dict[str, object]) -> None:
        """Attributes by name, without those that were worked out from the others at their first use."""
        known = {name: inspect.getattr_static(kind, name, None) for name in sorted(state)}
        given = [name for name, member in known.items() if not isinstance(member, functools.cached_property)]
        self._add_all(path, ((name, state[name]) for name in given))

    def _module(self, path: str, module: nn.Module) -> None:
        found: Any = object.__getstate__(module)
        state, slots = found if isinstance(found, tuple) else (found, {})
        for group in ("_parameters", "_buffers", "_modules"):
            self._add_all(path, state[group].items())
        always = state["_forward_hooks_always_called"]
        for group in ("_forward_pre_hooks", "_forward_hooks"):
            keyed = state[f"{group}_with_kwargs"]
            hooks = ((hook, key in keyed, key in always) for key, hook in state[group].items())
            self._add(f"{path}.{group}", tuple(hooks))
        own = {name: value for name, value in (state | slots).items() if name not in PASSING}
        if installed(type(module).__module__):
            own = {name: value for name, value in own.items() if name not in ORIGIN and not _is_cache(name, value)}
        self._state(path, type(module), own)

    def _class(self, path: str, kind: type) -> None:
        """A class that a package has under its name by that, with any methods that a user put in place of its own."""
        self._write(f"{kind.__module__}.{kind.__qualname__}")
        self._add(path, kind.__bases__)
        named = is_named(kind)
        members = ((name, vars(kind)[name]) for name in sorted(vars(kind).keys() - REMARKS))
        self._add_all(path, ((name, member) for name, member in members if not named or is_patch(member)))

    def _function(self, path: str, function: FunctionType) -> None:
        self._write(f"{function.__module__}.{function.__qualname__}")
        if is_named(function):
            return
        parts = list(_inner(function.__code__))
        for code in parts:
            self._code(path, code)
        self._add(path, (function.__defaults__, function.__kwdefaults__))
        self._add_all(path, sorted(vars(function).items()))
        names = {name for code in parts for name in code.co_names}
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        around = {name: _content(cell) for name, cell in cells}
        self._reads(path, around, set(around), names)
        if not installed(function.__globals__.get("__name__")):
            read = {step.argval for code in parts for step in dis.get_instructions(code) if step.opname in GLOBAL_READS}
            self._reads(path, function.__globals__, read, names)

    def _reads(
        self, path: str, known: dict[str, Any], read: set[str], names: set[str], within: tuple[ModuleType, ...] = ()
    ) -> None:
        """What a function reads from around itself; of a user's module all whose name the function has."""
        listed = sorted(read & known.keys())
        self._write(f"reads {len(listed)}")
        for name in listed:
            self._write(name)
            thing = known[name]
            if not isinstance(thing, ModuleType) or installed(thing.__name__):
                self._add(f"{path}.{name}", thing)
            elif thing not in within:
                self._reads(f"{path}.{name}", vars(thing), names, names, (*within, thing))

    def _code(self, path: str, code: CodeType) -> None:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars)
        constants = tuple(constant for constant in code.co_consts if not isinstance(constant, CodeType))
        self._add(path, (code.co_code, code.co_exceptiontable, *counts, *names, constants))


def _inner(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inner(constant)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return NotImplemented


def _is_cache(name: str, value: object) -> bool:
    """Whether a package keeps there, for each device, what it has worked out from the rest: so does timm's LeViT."""
    return "cache" in name and isinstance(value, dict)
