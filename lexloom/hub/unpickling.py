"""A process of its own that reads the tensors of one PyTorch file, and can do nothing else. Nothing of the package imports this.

    python -m lexloom.hub.unpickling FILE SECONDS

To stdout goes a line of JSON, `{"left": […]}` or `{"error": …}`, then the tensors as safetensors. PyTorch's `weights_only` keeps to
tensors and plain containers, but it was got round before (CVE-2025-32434, CVE-2026-24747). So before the file is opened the process gives
up what an intruder would want: memory, time, files to write to, programs to start, and the network. Limits hold on every Unix; the
kernel's filter of calls on Linux, x86-64 and aarch64; and Python's audit events everywhere.
"""

from __future__ import annotations

import ctypes
import json
import platform
import resource
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_NAMES = 100_000
_NESTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
_EVENTS = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "pty.",
    "urllib.",
    "ftplib.",
    "os.kill",
)
_AT_ONCE = 6  # how many times a file's size may stand in memory: as it is read, and as it is handed on

# By machine: its number for the kernel; the numbers of calls that are refused (sockets, programs, other processes, and what makes, renames
# or removes files); clone; the calls that open a file, and which of their arguments are the flags.
_CALLS: dict[str, tuple[int, str, int, tuple[tuple[int, int], ...]]] = {
    "x86_64": (
        0xC000003E,
        "41 42 43 49 50 53 288 59 322 57 58 101 310 311 62 200 424 76 77 82 83 84 85 86 87 88 90 91 92 93 94 133 161 165 166 272 "
        "308 321 425 426 437 258 259 260 263 264 265 266 268 316 298",
        56,
        ((257, 2), (2, 1)),
    ),
    "aarch64": (
        0xC00000B7,
        "198 199 200 201 202 203 242 221 281 117 270 271 129 130 424 45 46 33 34 35 36 37 38 39 40 51 52 53 54 55 97 268 276 280 "
        "425 426 437 241",
        220,
        ((56, 2),),
    ),
}
_CLONE3 = 435
_ALLOW, _REFUSE, _MISSING, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_THREAD, _WRITING = 0x00010000, 0o1 | 0o2 | 0o100 | 0o1000  # of clone: a thread of this process; of open: what makes or changes a file


def main() -> int:
    """Reads the file that the command line names."""
    path, seconds = Path(sys.argv[1]), int(sys.argv[2])
    import torch
    from safetensors.torch import save

    try:
        confine(path.stat().st_size, seconds)
        check_zip(path)
        found, left = flattened(torch.load(path, map_location="cpu", weights_only=True))
        answer: dict[str, Any] = {"left": left}
        content = save(found)
    except MemoryError:
        answer, content = {"error": "it takes far more memory than its size"}, b""
    except Exception as error:
        answer, content = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return 0


def confine(size: int, seconds: int) -> None:
    """Gives up memory beyond some times the file's size, time, files, programs and the network, for good."""
    held = 1 << 33
    if Path("/proc/self/statm").exists():
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = held + _AT_ONCE * size + (1 << 28)
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    if platform.system() == "Linux" and platform.machine() in _CALLS:
        filter_calls(*_CALLS[platform.machine()])
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: a file of tensors starts nothing, connects nowhere and writes nothing."""
    if event.startswith(_EVENTS) or (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        raise PermissionError(f"the file tried to do more than hold tensors: {event}")


def filter_calls(machine: int, refused: str, clone: int, opens: tuple[tuple[int, int], ...]) -> None:
    """A seccomp filter (a program of the kernel's own small machine) that this process cannot take off again.

    Raises:
        OSError: the kernel would not take it; then nothing is opened.
    """
    program = [(0x20, 0, 0, 4), (0x15, 1, 0, machine), (0x06, 0, 0, _KILL), (0x20, 0, 0, 0)]  # another machine's calls: the end
    if machine == _CALLS["x86_64"][0]:
        program += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, _REFUSE)]  # the same calls under other numbers
    program += [(0x15, 0, 1, _CLONE3), (0x06, 0, 0, _MISSING)]  # the C library then takes clone, whose flags can be read
    for number in map(int, refused.split()):
        program += [(0x15, 0, 1, number), (0x06, 0, 0, _REFUSE)]
    program += [(0x15, 0, 4, clone), (0x20, 0, 0, 16), (0x45, 1, 0, _THREAD), (0x06, 0, 0, _REFUSE), (0x06, 0, 0, _ALLOW)]
    for number, place in opens:
        program += [(0x15, 0, 4, number), (0x20, 0, 0, 16 + 8 * place), (0x45, 0, 1, _WRITING), (0x06, 0, 0, _REFUSE), (0x06, 0, 0, _ALLOW)]
    program.append((0x06, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    library = ctypes.CDLL(None, use_errno=True)
    whole = Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.byref(whole), 0, 0):  # no new privileges; filter
        raise OSError(ctypes.get_errno(), "this kernel takes no filter of calls")


def check_zip(path: Path) -> None:
    """Refuses archives that PyTorch did not write: it packs nothing, so what they hold is no larger than they are.

    Raises:
        ValueError: one is packed, or holds more than its size.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its parts are compressed, as PyTorch never writes them")
    if sum(entry.file_size for entry in entries) > path.stat().st_size or len(entries) > MAX_NAMES:
        raise ValueError("its parts are larger together than the file")


def flattened(value: Any) -> tuple[dict[str, Any], list[str]]:
    """The tensors by name, each with storage of its own, and the names of what else was there.

    Training scripts put them under `state_dict`, `model` and the like, beside what they resume from.

    Raises:
        ValueError: there are no tensors, or they pretend to be larger than the file.
    """
    import torch

    left: list[str] = []
    for _ in range(3):
        nest = next((n for n in _NESTS if isinstance(value, Mapping) and isinstance(value.get(n), Mapping)), None)
        if nest is None or any(isinstance(inner, torch.Tensor) for inner in value.values()):
            break
        left += [str(name)[:200] for name in value if name != nest]
        value = value[nest]
    if not isinstance(value, Mapping):
        raise ValueError(f"it holds no tensors by name, but a {type(value).__name__}")
    tensors = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, torch.Tensor)}
    left += [str(name)[:200] for name in value if str(name) not in tensors]
    if not 0 < len(tensors) <= MAX_NAMES:
        raise ValueError(f"it holds {len(tensors)} tensors by name")
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    for name, tensor in tensors.items():
        if (
            tensor.layout != torch.strided
            or tensor.device.type != "cpu"
            or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        ):
            raise ValueError(f"{name[:200]} is no plain tensor: its shape says {tuple(tensor.shape)}")
    if sum(t.numel() * t.element_size() for t in tensors.values()) > 2 * sum(sizes.values()):
        raise ValueError("its tensors show the same numbers again and again")
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, left[:1000]


if __name__ == "__main__":
    sys.exit(main())
