"""What a measurement was made on: processor, memory, system and package versions. Serves every recorded result."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from squeezebert.files.cores import usable_cores

# What decides how fast vectors and integer products are, as Linux names it, on x86-64 and on ARM
_VECTOR_UNITS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve")
_CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("squeezebert", "torch", "transformers", "onnxruntime", "tokenizers", "numpy")


def describe_machine() -> dict[str, str | int | None]:
    """Return what a speed depends on.

    Processor name and vector units (processors of one name may differ in them; empty where the system does not say),
    cores this process may use, memory in GB, operating system and Python version.
    """
    units = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "vector_units": " ".join(unit for unit in _VECTOR_UNITS if unit in units),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def package_versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the version of each package that is installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's list, or nothing."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(field):
                return " ".join(line.partition(":")[2].split())
    return ""


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None
