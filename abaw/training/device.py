"""Which device, precision and number of threads a computation gets; each resolved in one place."""

from __future__ import annotations

import ctypes
import logging
import os
import sys

import torch

from abaw.errors import AbawError, ExitCode

logger = logging.getLogger(__name__)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)
PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """Device for "auto", "cpu", "cuda" or "cuda:1"; "auto" takes CUDA where there is one, and says what it took.

    Raises AbawError (missing) when CUDA, or a CUDA device of that number, is asked for and not there.
    """
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise AbawError(
            f'unknown device "{name}"',
            where="run.device or --device",
            fix="choose one of: auto, cpu, cuda, cuda:<number>",
            code=ExitCode.CONFIG,
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and count == 0):
        if kind == "auto":
            logger.info("device: cpu (auto: no CUDA device is available)")
        return torch.device("cpu")
    wanted = int(number) if number else _number("LOCAL_RANK", 0)
    if number and launched()[1] > 1:
        raise AbawError(
            f'{launched()[1]} processes cannot share device "{name}"',
            where="run.device or --device",
            fix="use --device cuda: each process then takes a device of its own",
            code=ExitCode.CONFIG,
        )
    if wanted >= count:
        raise AbawError(
            f'device "{name}" is not available ({count} CUDA devices found)',
            where="run.device or --device",
            fix='use --device cpu, or "auto" to take whatever is there',
            code=ExitCode.MISSING,
        )
    if kind == "auto":
        logger.info("device: cuda:%d, %s (auto)", wanted, torch.cuda.get_device_name(wanted))
    torch.backends.cudnn.allow_tf32 = False  # on by default in convolutions, where "fp32" would not be fp32
    return torch.device("cuda", wanted)


def resolve_precision(name: str, device: torch.device, *, key: str = "precision", recorded: str | None = None) -> str:
    """ "fp32" or "bf16"; "auto" goes on with what is recorded, else takes bf16 where the hardware multiplies it."""
    if name not in PRECISIONS:
        raise AbawError(
            f'unknown precision "{name}"',
            where=key,
            fix=f"choose one of: {', '.join(PRECISIONS)}",
            code=ExitCode.CONFIG,
        )
    if name != "auto":
        return name
    return recorded or ("bf16" if _has_native_bf16(device) else "fp32")


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Private in torch, hence guarded: without them the answer is the safe one.
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which matrix products run in the given precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def use_threads(count: int) -> int:
    """Give torch `count` threads and return the number in use.

    0 stands for OMP_NUM_THREADS, or else for all cores this process may use, divided among the processes of this
    machine. torchrun sets OMP_NUM_THREADS to 1 by itself, so a 1 counts for nothing there.
    """
    local = _number("LOCAL_WORLD_SIZE", 1) if launched()[1] > 1 else 1
    wished = os.environ.get("OMP_NUM_THREADS", "")
    if count:
        torch.set_num_threads(count)
    elif wished in ("", "1" if local > 1 else ""):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Let the C library keep up to a gigabyte of what is freed for whoever asks next; only glibc can be told.

    By default it gives large pieces back to the system, and gets a model's activations anew, page by page, in every
    layer: up to a fifth of the time on the CPU.
    """
    library = ctypes.CDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        library.malloc_trim(0)  # what was freed before is not to be kept
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def rank_and_world() -> tuple[int, int]:
    """Number of this process and of all processes that train together; (0, 1) for a single one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def launched() -> tuple[int, int]:
    """The same as torchrun says it in the environment, before the processes have joined."""
    world = _number("WORLD_SIZE", 1)
    return (_number("RANK", 0), world) if world > 1 else (0, 1)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
