"""The filter, run by a machine of BPF instructions of our own, answers each system call as it should."""

import re
import struct
from pathlib import Path

import pytest

from fettle.sandbox.inside import syscalls
from fettle.sandbox.inside.seccomp import filter_of

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
EPERM, EACCES, ENOSYS = 0x00050001, 0x0005000D, 0x00050026
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SOCKET = {"x86_64": 41, "aarch64": 198}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(machine, number, *arguments, architecture=None, counted=True):
    """What the filter returns for a call."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *words)
    program = list(struct.iter_unpack("=HBBI", filter_of(machine, counted=counted)))
    place, held = 0, 0
    while True:
        code, if_so, if_not, constant = program[place]
        place += 1
        if code == 0x06:
            return constant
        if code == 0x20:
            (held,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            held &= constant
        else:
            holds = {0x15: held == constant, 0x35: held >= constant, 0x45: bool(held & constant)}[code]
            place += if_so if holds else if_not


@pytest.fixture(params=syscalls.MACHINES)
def machine(request):
    return request.param


def test_what_is_listed_is_allowed_and_nothing_else(machine):
    known = syscalls.numbers(machine)
    with_conditions = {SOCKET[machine], *(known.pop(name) for name in ("clone", "ioctl", "socketpair"))}
    for number in range(1100):
        if number not in with_conditions:
            assert answer(machine, number) == (ALLOWED if number in known.values() else ENOSYS), number


def test_processes_and_threads_are_made_but_no_namespaces(machine):
    clone = syscalls.numbers(machine)["clone"]
    assert answer(machine, clone, 0x11) == ALLOWED
    assert answer(machine, clone, 0x3D0F00) == ALLOWED  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert answer(machine, clone, 0x11 | flag) == EPERM
    assert answer(machine, 435, 0) == ENOSYS  # clone3


def test_sockets_are_pairs_within_the_machine(machine):
    pair = syscalls.numbers(machine)["socketpair"]
    assert answer(machine, pair, 1, 1) == ALLOWED
    assert answer(machine, pair, 1, 5 | 0o2000000 | 0o4000) == ALLOWED  # packets in order; closed on exec, not blocking
    assert answer(machine, pair, 2, 1) == EACCES
    for kind in (2, 2 | 0o2000000, 3, 0):  # datagrams may be sent to any path
        assert answer(machine, pair, 1, kind) == EACCES
    assert answer(machine, SOCKET[machine], 1, 1) == EACCES


def test_memory_that_several_share_is_had_only_where_it_is_counted(machine):
    mmap = syscalls.numbers(machine)["mmap"]
    private, shared, checked, of_no_file = 0x02, 0x01, 0x03, 0x20
    for kind in (shared, checked):
        assert answer(machine, mmap, 0, 4096, 3, kind | of_no_file) == ALLOWED
        assert answer(machine, mmap, 0, 4096, 3, kind | of_no_file, counted=False) == EACCES
        assert answer(machine, mmap, 0, 4096, 3, kind, counted=False) == ALLOWED
    assert answer(machine, mmap, 0, 4096, 3, private | of_no_file, counted=False) == ALLOWED


def test_nothing_is_typed_into_a_terminal(machine):
    control = syscalls.numbers(machine)["ioctl"]
    assert answer(machine, control, 0, 0x5401) == ALLOWED
    assert answer(machine, control, 0, 0x5412) == EPERM
    assert answer(machine, control, 0, 0x541C) == EPERM


def test_calls_of_another_processor_are_the_end(machine):
    assert answer(machine, 0, architecture=0x40000003) == KILLED


def test_calls_of_the_other_interface_do_not_exist():
    assert answer("x86_64", 0x40000000 | 39) == ENOSYS


def test_a_processor_that_is_not_known_has_no_filter():
    assert filter_of("riscv64", counted=True) is None


def test_the_numbers_are_the_kernels(machine):
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip("the kernel's headers are not here")
    told = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    if machine == "aarch64":
        told["newfstatat"] = told["fstatat"]
    known = syscalls.numbers(machine)
    compared = {name for name in known if name in told}
    assert len(compared) > len(known) - 5  # headers may be older than the newest calls
    assert {name: known[name] for name in compared} == {name: int(told[name]) for name in compared}
