"""Where the figures are from; without it they say little."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
from msgspec import Struct

PACKAGES = ("cryptography", "uvicorn", "litestar")


class Machine(Struct, frozen=True):
    """A machine, without its name."""

    cpu: str
    cores: int
    memory_gib: float
    load_average: float
    """Of the minute before the bench."""
    python: str
    versions: dict[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{package} {number}" for package, number in self.versions.items())
        hardware = f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB"
        return f"{hardware}, load {self.load_average:.2f} before; Python {self.python}, {versions}"


def describe() -> Machine:
    """Describe this one."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=psutil.virtual_memory().total / 2**30,
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        versions={package: version(package) for package in PACKAGES},
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() knows no model there
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
