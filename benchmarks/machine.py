"""The machine: what it is, how busy it is, how fast it could be, and how much memory a process takes."""

import ctypes
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

PACKAGES = ("fettle", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")
GEMM = 1024
"""Rows and columns of the matrices whose product is timed."""
COPIED = 1 << 26
"""Floats in the buffer whose copy is timed: 256 MiB, beyond any cache."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Floor:
    """What the machine can do, measured in the same run: no program is faster than its arithmetic."""

    fp32_gflops: float
    bf16_gflops: float
    copy_gbps: float

    def seconds(self, flops: float, dtype: str) -> float:
        """How long so many floating-point operations take at the rate of a large matrix product."""
        return flops / (1e9 * (self.bf16_gflops if dtype == "bf16" else self.fp32_gflops))

    def best(self, other: "Floor") -> "Floor":
        """The faster of two measurements, number by number."""
        return Floor(*(max(pair) for pair in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def floor(device: str, *, seconds: float = 0.4) -> Floor:
    """Rates of matrix products in both precisions, and of a copy (read and written bytes)."""
    with torch.no_grad():
        rates = [_product_rate(dtype, device, seconds) for dtype in (torch.float32, torch.bfloat16)]
        source = torch.ones(COPIED, device=device)
        target = torch.empty_like(source)
        copy = 8 * COPIED / _best(lambda: target.copy_(source), device, seconds) / 1e9
    return Floor(rates[0], rates[1], copy)


def _product_rate(dtype: torch.dtype, device: str, seconds: float) -> float:
    """Billions of operations a second of a large square matrix product."""
    size = GEMM if device == "cpu" else 8 * GEMM
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / _best(lambda: torch.mm(a, b, out=out), device, seconds) / 1e9


def _best(call: Callable[[], object], device: str, seconds: float) -> float:
    """The least time of a call, over ``seconds`` of calls."""
    call()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        call()
        synchronize(device)
        least = min(least, time.perf_counter() - started)
    return least


def synchronize(device: str) -> None:
    """Wait for what was queued on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def described() -> dict[str, object]:
    """The processor, its cores, the memory, and the GPU if there is one."""
    flags = _cpuinfo("flags").split()
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16."""
    return bool(described()["bf16"])


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """Of everything that is measured; a peer that is not installed is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def load() -> float:
    """Processes that ran or waited to run, over the last minute."""
    return os.getloadavg()[0]


def resident() -> int:
    """Bytes of memory that this process holds now, once what it has freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def peak_of(call: Callable[[], object], device: str) -> int:
    """The most bytes that were held at once during a call: in the whole process, or on the GPU."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # the high-water mark falls to what is held now
    call()
    return _status("VmHWM")


def held(device: str) -> int:
    """Bytes held now: in the whole process, or on the GPU."""
    return torch.cuda.memory_allocated() if device == "cuda" else resident()


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
