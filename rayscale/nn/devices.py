"""What a device can do and what a trial used of it: precision, peak speed, peak memory."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from rayscale.errors import TrialError
from rayscale.nn.ranks import Group

# Dense peak FLOP/s (bf16, tf32, fp32) from NVIDIA's data sheets; the first name contained in the device's name counts.
PEAK_FLOPS = {
    "H200": (989e12, 494e12, 67e12),
    "H100 PCIe": (756e12, 378e12, 51e12),
    "H100": (989e12, 494e12, 67e12),
    "A100": (312e12, 156e12, 19.5e12),
    "L40S": (362e12, 183e12, 91.6e12),
    "L4": (121e12, 60e12, 30.3e12),
}
PRECISIONS = ("bf16", "tf32", "fp32")
TF32_CAPABILITY = (8, 0)  # Ampere


# Narrower models on a CPU do not gain enough from bf16 to give up digits (see docs/LOG.md).
BF16_CPU_WIDTH = 256


def resolve_precision(setting: str, group: Group, width: int) -> str:
    """'fp32', 'tf32' or 'bf16', the same on all ranks, every one of which must call.

    `auto` is bf16 autocast on CUDA devices that have it, and on CPUs whose instructions multiply bf16, for models at
    least BF16_CPU_WIDTH wide; fp32 elsewhere. tf32 keeps all numbers in float32 and multiplies matrices in TF32.
    Raises TrialError if bf16 is asked of a CUDA device that lacks it, or tf32 of any device that does.
    """
    device = group.device
    if device.type == "cpu" and setting == "auto":
        able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "fp32" if group.largest([float(width < BF16_CPU_WIDTH or not able)])[0] else "bf16"
    if setting == "fp32" or (setting == "auto" and device.type != "cuda"):
        return "fp32"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    if setting == "tf32":
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < TF32_CAPABILITY:
            text = f"{name} has no TF32; set training.precision to auto, bf16 or fp32"
            raise TrialError(text, code="no_tf32", permanent=True)
        return "tf32"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        if setting == "auto":
            return "fp32"
        raise TrialError(f"{name} has no bf16; set training.precision to auto or fp32", code="no_bf16", permanent=True)
    return "bf16"


def let_multiply(device: torch.device, precision: str) -> None:
    """Sets how float32 matrices are multiplied: in TF32 on CUDA devices, unless fp32 was asked for."""
    tf32 = device.type == "cuda" and precision != "fp32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass in this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of a known CUDA device, else None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[PRECISIONS.index(precision)] for known, peaks in PEAK_FLOPS.items() if known in name), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: on the device, or for this process."""
    # torch has a type of its own for CUDA only; its CPU allocator and cuBLAS say it in words.
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def restart_memory_peak(device: torch.device) -> bool:
    """Peak memory is measured from here on; False if this system cannot tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        # Linux: writing 5 sets the high-water mark of resident memory back to the present (man 5 proc).
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def read_memory_peak(device: torch.device) -> int:
    """Largest since the restart, in bytes: allocated on the CUDA device, or resident in this process, libraries too."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8"))
    return int(peak.group(1)) * 1024 if peak else 0
