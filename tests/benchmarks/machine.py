"""On what a figure was measured."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def described(threads: int | None = None) -> str:
    """Processor or GPU, threads used (by default those of this process), and the versions that matter."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm"))
    threads = threads or min(torch.get_num_threads(), os.cpu_count() or 1)
    return f"{gpu}{cpu}, {threads} threads, Python {platform.python_version()}, {packages}"
