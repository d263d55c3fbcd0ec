"""What a device can do and what a trial used of it: precision, peak speed, peak memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from rayscale.errors import TrialError
from rayscale.nn.group import Group

# Dense peak FLOP/s (bf16, fp32) from NVIDIA's data sheets; the first name contained in the device's name counts.
PEAK_FLOPS = {
    "H200": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
}


# Narrower models on a CPU do not gain enough from bf16 to give up digits (see docs/LOG.md).
BF16_CPU_WIDTH = 256


def resolve_precision(setting: str, group: Group, width: int) -> str:
    """'fp32' or 'bf16', the same on all ranks, every one of which must call.

    `auto` is bf16 autocast on CUDA devices that have it, and on CPUs whose instructions multiply bf16, for models at
    least BF16_CPU_WIDTH wide; fp32 elsewhere. Raises TrialError if bf16 is asked of a CUDA device that lacks it.
    """
    device = group.device
    if device.type == "cpu" and setting == "auto":
        fp32 = width < BF16_CPU_WIDTH or not (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
        return "fp32" if group.largest([float(fp32)])[0] else "bf16"
    if setting == "fp32" or (setting == "auto" and device.type != "cuda"):
        return "fp32"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        if setting == "auto":
            return "fp32"
        raise TrialError(
            f"{torch.cuda.get_device_name(device)} has no bf16; set training.precision to auto or fp32",
            code="no_bf16",
            permanent=True,
        )
    return "bf16"


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of a known CUDA device, else None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for known, (bf16, fp32) in PEAK_FLOPS.items():
        if known in name:
            return bf16 if precision == "bf16" else fp32
    return None


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
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def read_memory_peak(device: torch.device) -> int:
    """Largest since the restart, in bytes: allocated on the CUDA device, or resident in this process, libraries too."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{os.getpid()}/status").read_text())
    return int(found.group(1)) * 1024 if found else 0
