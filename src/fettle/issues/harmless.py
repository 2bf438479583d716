"""What of the standard library a change may use, whether or not the problem's own files do: values, and no more."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType, ModuleType

HARMLESS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "__future__": (),
        "abc": ("ABC", "abstractmethod"),
        "array": (),
        "base64": (),
        "binascii": (),
        "bisect": (),
        "calendar": (),
        "cmath": (),
        "collections": (),
        "collections.abc": (),
        "contextlib": ("ExitStack", "closing", "contextmanager", "nullcontext", "suppress"),
        "copy": ("copy", "deepcopy"),
        "dataclasses": ("KW_ONLY", "asdict", "astuple", "dataclass", "field", "fields", "is_dataclass", "replace"),
        "datetime": (),
        "decimal": (),
        "difflib": (),
        "fractions": (),
        "functools": (
            "cache", "cached_property", "cmp_to_key", "lru_cache", "partial", "partialmethod", "reduce",
            "total_ordering", "wraps",
        ),
        "hashlib": (),
        "heapq": (),
        "html": (),
        "ipaddress": (),
        "itertools": (),
        "json": (),
        "keyword": (),
        "logging": ("CRITICAL", "DEBUG", "ERROR", "INFO", "WARNING", "getLogger"),
        "math": (),
        "numbers": (),
        "operator": (
            "add", "and_", "concat", "contains", "countOf", "eq", "floordiv", "ge", "gt", "index", "indexOf", "inv",
            "is_", "is_not", "itemgetter", "le", "lshift", "lt", "matmul", "mod", "mul", "ne", "neg", "not_", "or_",
            "pos", "pow", "rshift", "sub", "truediv", "truth", "xor",
        ),
        "os": ("PathLike", "fspath", "linesep", "sep"),
        "os.path": (
            "basename", "commonpath", "commonprefix", "dirname", "exists", "isabs", "isdir", "isfile", "join",
            "normcase", "normpath", "relpath", "sep", "split", "splitext",
        ),
        "pathlib": ("PurePath", "PurePosixPath", "PureWindowsPath"),
        "random": (),
        "re": (),
        "secrets": (),
        "statistics": (),
        "string": (
            "Template", "ascii_letters", "ascii_lowercase", "ascii_uppercase", "capwords", "digits", "hexdigits",
            "octdigits", "printable", "punctuation", "whitespace",
        ),
        "struct": (),
        "sys": ("float_info", "maxsize", "maxunicode"),
        "textwrap": (),
        "time": (),
        "types": ("MappingProxyType", "SimpleNamespace"),
        "typing": (),
        "unicodedata": (),
        "urllib.parse": (),
        "uuid": ("UUID", "uuid3", "uuid4", "uuid5"),
        "warnings": ("warn",),
        "zlib": (),
        "zoneinfo": ("ZoneInfo",),
    }
)  # fmt: skip
"""Modules with the names that may be used; empty for all that they make public."""
UNSAID = frozenset({"typing.ForwardRef", "typing.get_type_hints", "typing.NamedTuple", "typing.TypedDict"})
"""Public names that run a text, or make a class of a table."""
FOR_EVERYBODY = frozenset(
    re.findall(
        r"\w+",
        "__aenter__ __aexit__ __aiter__ __all__ __anext__ __await__ __call__ __delitem__ __doc__ __enter__ __exit__ "
        "__getitem__ __init__ __iter__ __len__ __main__ __missing__ __module__ __name__ __new__ __next__ __post_init__ "
        "__qualname__ __repr__ __reversed__ __setitem__ __slots__ __str__ __version__",
    )
)
"""Special names by which an object is made, read and shown; by others it is compared, or its inside is reached."""
BEYOND = frozenset(
    re.findall(
        r"\w+",
        "BaseExceptionGroup GeneratorExit KeyboardInterrupt SystemExit breakpoint compile copyright credits delattr "
        "dir eval exec exit getattr globals help input license locals memoryview open quit setattr vars",
    )
)
"""Names of builtins that end a program, run a text, or reach what has no name in it; and ``type``, but for asking."""
INSIDES = (
    r"(gi|cr|ag)_(await|code|frame|origin|running|suspended|yieldfrom)|tb_(frame|lasti|lineno|next)|co_\w+"
    r"|f_(back|builtins|code|globals|lasti|lineno|locals|trace\w*)|_getframe\w*|_current_\w+|meta_path|path_hooks"
    r"|settrace\w*|setprofile\w*|get_objects|get_referrers|get_referents|_exit|mro|register_assert_rewrite"
)
"""Attributes that lead into frames, code and the interpreter, whatever they are of."""

LEADING = frozenset({"builtins", "ctypes", "gc", "importlib", "inspect", "os", "subprocess", "sys", "threading"})
"""Modules that are not to be had of whatever has imported them."""


@cache
def usable(module: str) -> frozenset[str]:
    """The names of a harmless module that may be used."""
    if HARMLESS[module]:
        return frozenset(HARMLESS[module])
    found = import_module(module)
    public = getattr(found, "__all__", None) or [
        name for name, held in vars(found).items() if name[0] != "_" and not isinstance(held, ModuleType)
    ]
    return frozenset(name for name in public if f"{module}.{name}" not in UNSAID)
