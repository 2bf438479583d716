"""Calls of the Linux kernel that Python has no names for."""

import ctypes
import os
import signal
import struct

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NEW_OF_ALL_BUT_USERS = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET

RDONLY, NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
ATTR_READ_ONLY = 0x01 | 0x02 | 0x04
"""Of ``mount_setattr``: read-only, no set-user-id, no devices."""

_CLONE = {"x86_64": 56, "aarch64": 220}
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446
"""These have the same numbers on every processor."""
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS, _SUBREAPER, _CAP_AMBIENT, _SECCOMP = 1, 4, 24, 38, 36, 47, 22
_LAST_CAPABILITY = 63

# The calling thread keeps Python's lock: there is no other, and after a clone there is nobody to take it back from.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


def machine() -> str:
    """The processor's name."""
    return os.uname().machine


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def clone(flags: int) -> int:
    """A child in new namespaces: its id, and 0 in the child."""
    arguments = [ctypes.c_ulong(number) for number in (flags | signal.SIGCHLD, 0, 0, 0, 0)]
    return _checked(_libc.syscall(_CLONE[machine()], *arguments), "clone")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    said = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _checked(_libc.mount(said[0], said[1], said[2], ctypes.c_ulong(flags), said[3]), f"mount {target}")


def make_read_only(path: str) -> None:
    """Everything mounted at ``path`` and below it."""
    attributes = struct.pack("=QQQQ", ATTR_READ_ONLY, 0, 0, 0)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    _checked(result, "mount_setattr")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _checked(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root")


def detach(path: str) -> None:
    """Unmount ``path`` and all below it, though it is in use."""
    _checked(_libc.umount2(os.fsencode(path), 2), f"umount {path}")


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    _checked(_libc.sethostname(os.fsencode(name), ctypes.c_size_t(len(name))), "sethostname")


def _prctl(option: int, *arguments: int) -> int:
    return int(_libc.prctl(option, *arguments, *[0] * (4 - len(arguments))))


def die_with_parent(number: int) -> None:
    """``number`` is sent to this process when the thread ends that started it."""
    _checked(_prctl(_PDEATHSIG, number), "PR_SET_PDEATHSIG")


def set_dumpable(yes: bool) -> None:
    """Whether processes of the same user may look into this one."""
    _checked(_prctl(_DUMPABLE, int(yes)), "PR_SET_DUMPABLE")


def adopt_orphans() -> None:
    """Descendants whose parents ended become children of this process."""
    _checked(_prctl(_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER")


def gain_nothing() -> None:
    """No program that is executed from here on gives more rights than there are."""
    _checked(_prctl(_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """All of them, those that a program could bring along included."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _prctl(_CAPBSET_DROP, capability) < 0:
            break  # beyond the last that this kernel knows, or none of ours to drop
    _prctl(_CAP_AMBIENT, 4)
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _checked(_libc.capset(header, nothing), "capset")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_system_calls(instructions: bytes) -> None:
    """Of this process and all it starts, by a program of 8-byte BPF instructions."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = _Program(len(instructions) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _checked(_prctl(_SECCOMP, 2, ctypes.addressof(program)), "PR_SET_SECCOMP")


def landlock_version() -> int:
    """What the kernel knows of Landlock; 0 where it knows nothing."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock_rules(attributes: bytes) -> int:
    """A descriptor of a new, empty set of rules."""
    return _checked(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock")


def landlock_allow(rules: int, rule: bytes) -> None:
    """Add what is allowed beneath a path."""
    _checked(_libc.syscall(_LANDLOCK_ADD, rules, 1, rule, 0), "a rule of Landlock")


def landlock_restrict(rules: int) -> None:
    """Keep this process and all it starts to the rules."""
    _checked(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0), "restriction by Landlock")
