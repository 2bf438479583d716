"""Landlock, the second wall: the kernel's own list of what a process may open, connect to and signal."""

import os
import stat
import struct

from fettle.sandbox.inside import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _CONTROL_DEVICE = 1, 2, 4, 8, 1 << 14, 1 << 15
_MAKE_CHARACTER_DEVICE, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _CONTROL_DEVICE
_FIRST_VERSION = (1 << 13) - 1
_SINCE = {2: 1 << 13, 3: _TRUNCATE, 5: _CONTROL_DEVICE}
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_SINCE_NETWORK, _SINCE_SCOPES = 4, 6
_BIND_AND_CONNECT = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3


def restrict(readable: list[str], writable: list[str]) -> None:
    """Keep this process to reading and to writing beneath these paths, to no TCP, and to signals among its own."""
    version = kernel.landlock_version()
    files = _FIRST_VERSION | sum(right for since, right in _SINCE.items() if version >= since)
    attributes = struct.pack("=Q", files)
    if version >= _SINCE_NETWORK:
        attributes += struct.pack("=Q", _BIND_AND_CONNECT)
    if version >= _SINCE_SCOPES:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    rules = kernel.landlock_rules(attributes)
    for path in readable:
        _allow(rules, path, files & _READ)
    for path in writable:
        _allow(rules, path, files & ~(_MAKE_CHARACTER_DEVICE | _MAKE_BLOCK_DEVICE))
    kernel.landlock_restrict(rules)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= _OF_FILES
    kernel.landlock_allow(rules, struct.pack("=Qi", rights, place))
    os.close(place)
