"""Which variables of the environment the processes of a run get: those on this list, and no secret among them.

A rank, a companion and their supervisor need paths, a language and the settings of the libraries that they load. They need no
cloud's keys and no token of a hub, and what they do not have cannot stand in a log, a core file or a report of theirs. A variable
that an experiment of your own needs is named in AIINFRA_KEEP_ENV, words apart by commas or blanks; what is named there is yours to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

KEEP_ENV = "AIINFRA_KEEP_ENV"
_NAMES = """
HOME USER LOGNAME PATH SHELL LANG LANGUAGE TZ TMPDIR TMP TEMP HOSTNAME SYSTEMROOT
LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH VIRTUAL_ENV OPAL_PREFIX GLOO_SOCKET_IFNAME
PYTHONPATH PYTHONHOME PYTHONHASHSEED PYTHONWARNINGS PYTHONFAULTHANDLER PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONNOUSERSITE
PYTHONUSERBASE PYTHONUTF8 PYTHONIOENCODING PYTHONUNBUFFERED
"""
_BEGINNINGS = """
AIINFRA_ LC_ XDG_ CONDA_ MALLOC_ HWLOC_ MPI4PY_ I_MPI_ UCX_ FI_ PSM2_ PSM3_
OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ BLIS_ VECLIB_ TORCH_ TORCHINDUCTOR_ PYTORCH_ TRITON_
CUDA_ CUBLAS_ CUDNN_ NVIDIA_ NCCL_ ROCR_ HIP_ HSA_ RCCL_
"""
NAMES = frozenset(_NAMES.split())
#: Settings of what a rank loads: the lab, an MPI of the site, torch and its libraries, drivers of accelerators.
BEGINNINGS = tuple(_BEGINNINGS.split())
#: What such a name speaks of is a secret, whatever it begins with.
SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|COOKIE|AUTH", re.IGNORECASE
)


def needed(base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `base` that the processes of a run get."""
    named = set(re.split(r"[,\s]+", base.get(KEEP_ENV, "")))
    return {
        k: v
        for k, v in base.items()
        if k in named or ((k in NAMES or k.startswith(BEGINNINGS)) and not SECRET.search(k))
    }
