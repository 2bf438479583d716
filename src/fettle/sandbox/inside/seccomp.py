"""The filter of system calls, as the BPF program that the kernel runs at each of them."""

import struct
from collections.abc import Iterable

from fettle.sandbox.inside import syscalls

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _KEEP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _MACHINE, _FIRST, _SECOND, _FOURTH = 0, 4, 16, 24, 40
"""Where the call's number, the processor and the low halves of some of its arguments lie."""
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_NEW_NAMESPACES = 0x7E020080
_TERMINAL_INPUT = (0x5412, 0x541C)
"""The two controls that put characters into a terminal as if they were typed."""
_LOCAL, _STREAM, _SEQUENCE, _KIND = 1, 1, 5, 0xF
"""The family of sockets that lead nowhere but to this machine; its kinds that reach nothing but their other end; and
the bits that tell the kind. Datagrams of a pair could be sent to whoever is listening at a path."""
_SHARED, _OF_NO_FILE = 0x01, 0x20
"""What memory may be when it is asked for."""

Instruction = tuple[int, int, int, int]

_PAIR: list[Instruction] = [
    (_LOAD, 0, 0, _FIRST),
    (_EQUAL, 0, 4, _LOCAL),
    (_LOAD, 0, 0, _SECOND),
    (_KEEP_BITS, 0, 0, _KIND),
    (_EQUAL, 2, 0, _STREAM),
    (_EQUAL, 1, 0, _SEQUENCE),
    (_RETURN, 0, 0, _ERROR | _EACCES),
    (_RETURN, 0, 0, _ALLOW),
]
"""Which pairs of sockets may be made."""
_MAPPED: list[Instruction] = [
    (_LOAD, 0, 0, _FOURTH),
    (_ANY_BIT, 0, 2, _SHARED),
    (_ANY_BIT, 0, 1, _OF_NO_FILE),
    (_RETURN, 0, 0, _ERROR | _EACCES),
    (_RETURN, 0, 0, _ALLOW),
]
"""Which memory may be had."""


def filter_of(machine: str, *, counted: bool) -> bytes | None:
    """The program for ``machine``, or None where its system calls are not known here.

    Where the kernel has not ``counted`` what memory all processes have, there is none that several share and no file
    holds: it stays when all but a page of it is let go, and is then seen by nobody.
    """
    if machine not in _ARCHITECTURE:
        return None
    known = syscalls.numbers(machine)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_if_call(_SOCKET[machine], [(_RETURN, 0, 0, _ERROR | _EACCES)]),
        # Without clone3, whose flags lie in memory that no filter can read, libraries fall back to clone.
        *_if_call(known.pop("clone"), _unless([(_ANY_BIT, _NEW_NAMESPACES)], _FIRST, _EPERM)),
        *_if_call(known.pop("ioctl"), _unless([(_EQUAL, number) for number in _TERMINAL_INPUT], _SECOND, _EPERM)),
        *_if_call(known.pop("socketpair"), _PAIR),
    ]
    if not counted:
        program += _if_call(known.pop("mmap"), _MAPPED)
    program += _tree(_turns(known.values()))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _if_call(number: int, then: list[Instruction]) -> list[Instruction]:
    """``then``, which ends by returning, where the loaded number is ``number``."""
    return [(_EQUAL, 0, len(then), number), *then]


def _unless(tests: list[tuple[int, int]], argument: int, error: int) -> list[Instruction]:
    """Allow, unless one of the tests holds of an argument."""
    jumps = [(test, len(tests) - place, 0, against) for place, (test, against) in enumerate(tests)]
    return [(_LOAD, 0, 0, argument), *jumps, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | error)]


def _turns(allowed: Iterable[int]) -> list[tuple[int, int]]:
    """From which number on there is which answer, lowest first.

    >>> [(number, answer == _ALLOW) for number, answer in _turns([5, 1, 2])]
    [(0, False), (1, True), (3, False), (5, True), (6, False)]
    """
    numbers = set(allowed)
    found = [(0, _ALLOW if 0 in numbers else _ERROR | _ENOSYS)]
    for number in range(1, max(numbers) + 2):
        answer = _ALLOW if number in numbers else _ERROR | _ENOSYS
        if answer != found[-1][1]:
            found.append((number, answer))
    return found


def _tree(turns: list[tuple[int, int]]) -> list[Instruction]:
    """Find the answer by halves: the kernel tries every number when the filter is put up, which costs each job time."""
    if len(turns) == 1:
        return [(_RETURN, 0, 0, turns[0][1])]
    middle = len(turns) // 2
    below, above = _tree(turns[:middle]), _tree(turns[middle:])
    return [(_AT_LEAST, len(below), 0, turns[middle][0]), *below, *above]
