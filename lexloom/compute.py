"""What this machine can do, and what was chosen for a run: device, dtype, threads, compile. Each choice with its reason."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import platform
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from lexloom.config import Config
from lexloom.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
"""Instruction sets that multiply bfloat16. Where there is none, it is slower than float32."""
INT8 = "int8"  # weights alone, and for answers alone
_KEEP = ((-4, 0), (-1, -1), (-2, 64 << 20))
"""M_MMAP_MAX: no block has pages of its own. M_TRIM_THRESHOLD: what is free at the end stays. M_TOP_PAD: grow by 64 MB (malloc.h)."""
COMPILE_PAYS_AFTER_STEPS = 1000  # compiling costs about a minute; a step of a small model gains a tenth of a second
COMPILE_PAYS_FROM = 1e13
"""Weights times tokens of all steps, on a CPU: 1.2 M weights gained 5 ms a step of 1,024 tokens, and cost 45 s (docs/log.md)."""


class ComputeConfig(Config):
    """Overrides of what lexloom would choose by itself."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    threads: int | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Compute:
    """What was chosen. Stored in the run and read again on resume, so that a resumed run computes the same bits."""

    device: str
    dtype: str
    threads: int
    compile: bool
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the network's compute copy; masters stay fp32."""
        return DTYPES[self.dtype]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def apply(self) -> None:
        """Sets the number of threads of this process, and on a CPU lets it keep the memory that steps give back."""
        torch.set_num_threads(self.threads)
        if self.device == "cpu":
            keep_memory()

    def line(self) -> str:
        """One line for the log."""
        why = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        compiled = "compiled" if self.compile else "eager"
        return f"{self.device}, {self.dtype}, {self.threads} thread{'s' * (self.threads != 1)}, {compiled} ({why})"


def choose(settings: ComputeConfig, *, steps: int, work: float | None = None) -> Compute:
    """Picks device, dtype, threads and compile for a run of `steps` steps of one shape.

    Args:
        work: weights times tokens of a step; None where nobody knows, as if they were many.

    Raises:
        ConfigError: a device is named that is not there.
    """
    reasons: dict[str, str] = {}
    device = _device(settings.device, reasons)
    dtype = settings.dtype
    if dtype == "auto":
        dtype, reasons["dtype"] = _dtype(device)
    threads = cores() if settings.threads == "auto" else settings.threads
    compiled = settings.compile
    if compiled == "auto":
        compiled, reasons["compile"] = _compile(device, steps, work)
    return Compute(device, dtype, threads, compiled, reasons)


def for_inference(device: str = "auto", dtype: str = "float32") -> Compute:
    """Device, dtype and threads for answering, eager. `auto` as dtype is bfloat16 where the machine computes it natively.

    Args:
        dtype: `int8` is weights of 8 bits under float32, on a CPU.

    Raises:
        ConfigError: the device is not there, or the dtype is none of these.
    """
    if dtype not in ("auto", "float32", "bfloat16", INT8):
        raise ConfigError("answers are computed in one of these ways", expected=f"auto, float32, bfloat16 or {INT8}", got=dtype)
    found = choose(ComputeConfig.read({"device": device, "dtype": "float32" if dtype == INT8 else dtype, "compile": False}), steps=0)
    if dtype == INT8 and found.device != "cpu":
        raise ConfigError("weights of 8 bits are for a CPU", expected="device: cpu", got=found.device)
    return replace(found, dtype=INT8) if dtype == INT8 else found


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Has numba compile a function at its first call, and keep the result for the next process where there is a place to write.

    Args:
        options: of `numba.njit`, such as `parallel`.
    """
    import numba  # small work does without

    def made(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # neither beside the file nor in the user's cache
            return numba.njit(nogil=True, **options)(function)

    return made


def shared(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A kernel whose `prange` is shared among as many threads as PyTorch has when it is called, or not, with `wide=False`.

    They are the threads that PyTorch's products have just used: numba finds the same OpenMP in the process. Others would have to wait until
    those stop waiting for their next product, which takes them milliseconds.
    """
    alone, together = kernel(**options)(function), kernel(parallel=True, **options)(_named(function, "shared"))

    def call(*arguments: Any, wide: bool = True) -> Any:
        if not wide or torch.get_num_threads() == 1:
            return alone(*arguments)
        share_threads()
        return together(*arguments)

    return call


def _named(function: Callable[..., Any], suffix: str) -> Callable[..., Any]:
    """The same function under a longer name. numba keeps what it compiled by name and place: of two kinds of one name it finds one."""
    found = types.FunctionType(function.__code__, function.__globals__, f"{function.__name__}_{suffix}")
    found.__qualname__, found.__doc__ = f"{function.__qualname__}_{suffix}", function.__doc__
    return found


def share_threads() -> None:
    """Kernels work on as many threads as PyTorch does from now on."""
    import numba

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def keep_memory() -> bool:
    """Tells the C library to keep freed memory for the next step; False where it is not glibc, and nothing is changed.

    glibc gets each large tensor fresh from the kernel and gives it back at once. Every step then waits for its pages to be cleared anew:
    90,000 of them for BERT of 4 × 256 over 4,096 tokens, a third of the time (docs/log.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(option, value) for option, value in _KEEP)


def release_memory() -> bool:
    """Gives memory that is free in this process back, where it was short; False where nothing was kept, or it is not glibc.

    Else threads find no room for their stacks beside what `keep_memory` keeps, however small a step has become.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0))


def memory(device: str = "cpu") -> tuple[int, int]:
    """Bytes of memory in all, and those that may be taken without pushing anything out: of this machine or the container around us."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return total, free
    found = psutil.virtual_memory()
    total, free = int(found.total), int(found.available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or none with a limit
        return total, free
    return min(total, limit), min(free, limit - used + int(pages.get("inactive_file", 0)))


def affinity() -> int:
    """Cores that the system lets this process use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> int:
    """Cores that this process may use: its affinity, and no more than OMP_NUM_THREADS where that is set."""
    found = affinity()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(found, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else found


def _device(wanted: str, reasons: dict[str, str]) -> str:
    if wanted == "auto":
        reasons["device"] = "a GPU is there" if torch.cuda.is_available() else "no GPU"
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here", got=wanted, hint="set device: cpu, or auto")
    if wanted not in ("cpu", "cuda") and not wanted.startswith("cuda:"):
        raise ConfigError("unknown device", expected="auto, cpu, cuda or cuda:N", got=wanted)
    return wanted


def _dtype(device: str) -> tuple[Literal["float32", "bfloat16"], str]:
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU computes it natively") if native else ("float32", "this GPU has no native bfloat16")
    found = cpu_flags()
    for flag, name in BF16_FLAGS.items():
        if flag in found:
            return "bfloat16", f"the CPU multiplies it ({name})"
    return "float32", "the CPU does not multiply bfloat16"


def _compile(device: str, steps: int, work: float | None) -> tuple[bool, str]:
    if device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return False, "no C++ compiler found"
    if steps < COMPILE_PAYS_AFTER_STEPS:
        return False, f"{steps} steps are too few to earn back compiling"
    if device == "cpu" and work is not None and steps * work < COMPILE_PAYS_FROM:
        return False, f"{steps} steps as small as these do not earn back compiling"
    return True, f"{steps} steps earn it back"


def onednn_pays() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL, which uses no AVX-512 on a CPU that is not Intel's (docs/log.md)."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and _cpu("vendor_id") == "AuthenticAMD" and "avx512f" in cpu_flags()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU, as Linux names them; empty elsewhere."""
    return frozenset(_cpu("flags").split())


@functools.cache
def _cpu(what: str) -> str:
    """What Linux says of the first CPU; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(what)), "")
    except OSError:
        return ""


def environment() -> dict[str, str]:
    """What a run was made with: versions, CPU, instruction sets; kept as `environment.json`."""
    from importlib.metadata import version

    flags = cpu_flags()
    interesting = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    packages = ("lexloom", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "scikit-learn")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "instruction sets": ", ".join(interesting) or "unknown",
        **{name: _version(version, name) for name in packages},
    }


def _version(version: Any, name: str) -> str:
    try:
        return str(version(name))
    except Exception:  # a package run from its source tree has no metadata
        return "not installed"
