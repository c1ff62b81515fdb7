"""An MPIJob for the MPI operator of Kubernetes (kubeflow.org/v2beta1), written from what is asked; nothing here talks to a cluster.

The launcher's pod is this package again: `aiinfra run ... --on hosts` with the host file that the operator writes, one daemon a worker by
ssh. So what happens in it is what happens on hosts. Not run by the project's own tests, which have no cluster: the manifest is checked
against the operator's schema.

What the cluster must have: the operator (v2beta1); an image with this package, an sshd and an ssh that takes the keys of new hosts
(as the operator's own base images have); and a volume that several pods can write (ReadWriteMany), where the lab keeps runs and pools.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError

API, KIND = "kubeflow.org/v2beta1", "MPIJob"
#: Where the operator puts its host file, and where the shared volume is seen in every pod.
HOSTFILE, HOME = "/etc/mpi/hostfile", "/aiinfra"
#: Shared memory of a worker: a container's 64 MiB are too few for the ranks' messages.
SHM = "1Gi"

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,510}")
_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class KubernetesRequest:
    """What is asked of the cluster.

    Attributes:
        name: Of the job: lower-case letters, digits, hyphens; at most 40, since the operator makes names of pods from it.
        image: Holds this package.
        ranks: In all.
        ranks_per_worker: Slots of a pod.
        claim: PersistentVolumeClaim that all pods mount.
        namespace: "" is the current one.
        cpus_per_rank, memory_per_rank_bytes, gpus_per_rank: What a worker is given, times its ranks.
        gpu_resource: What the cluster calls its GPUs.
        time_limit_s: After which the job is ended; 0 is none.
    """

    name: str
    image: str
    ranks: int
    claim: str
    ranks_per_worker: int = 1
    namespace: str = ""
    cpus_per_rank: int = 1
    memory_per_rank_bytes: int = 2**30
    gpus_per_rank: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    time_limit_s: float = 3600.0

    def __post_init__(self) -> None:
        words = {"name": _NAME, "image": _IMAGE, "claim": _SUBDOMAIN, "gpu_resource": _RESOURCE}
        for field, allowed in words.items():
            if not allowed.fullmatch(getattr(self, field)):
                raise SpecError(f"{field}: got {getattr(self, field)!r}; allowed: {allowed.pattern}")
        if self.namespace and not _NAME.fullmatch(self.namespace):
            raise SpecError(f"namespace: got {self.namespace!r}; allowed: {_NAME.pattern}")
        least = {
            "ranks": 1,
            "ranks_per_worker": 1,
            "cpus_per_rank": 1,
            "memory_per_rank_bytes": 2**28,
            "gpus_per_rank": 0,
        }
        for field, smallest in least.items():
            if not smallest <= getattr(self, field) <= 2**40:
                raise SpecError(f"{field}: got {getattr(self, field)}; allowed: {smallest} and more")
        if not 0 <= self.time_limit_s <= 365 * 86400:
            raise SpecError(f"time_limit_s: got {self.time_limit_s:g}; allowed: 0 (none) to a year")

    @property
    def workers(self) -> int:
        """Pods with ranks."""
        return math.ceil(self.ranks / self.ranks_per_worker)


def available() -> str | None:
    """Return why no job is submitted from here: the manifest is for a person's own `kubectl`."""
    return "manifests are written, not submitted; try: kubectl apply -f FILE, on a cluster with the MPI operator"


def manifest(request: KubernetesRequest, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the MPIJob as plain data, for `json` or `yaml.safe_dump`; pure.

    Args:
        request: What is asked.
        arguments: Of the command `aiinfra`, such as ["run", "training", "--nodes", "4"]; where it runs is added here.

    Raises:
        SpecError: It names no command of ours that starts ranks.
    """
    if not arguments or arguments[0] not in {"run", "resume", "sweep"}:
        raise SpecError(f"arguments: got {list(arguments)!r}; allowed: run, resume or sweep, and what they take")
    shared = [{"name": "home", "mountPath": HOME}]
    volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": request.claim}}]
    env = [{"name": "AIINFRA_HOME", "value": HOME}]
    launcher = {
        "name": "launcher", "image": request.image, "env": env, "volumeMounts": shared,
        "command": ["aiinfra", *arguments, "--on", "hosts", "--hosts", f"file={HOSTFILE}"],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }  # fmt: skip
    worker = {
        "name": "worker", "image": request.image, "env": env, "command": ["/usr/sbin/sshd", "-De"],
        "volumeMounts": [*shared, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108 - the mount of a pod
        "resources": {"limits": _limits(request)},
    }  # fmt: skip
    shm = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM}}
    policy: dict[str, Any] = {"cleanPodPolicy": "Running", "backoffLimit": 0, "ttlSecondsAfterFinished": 86400}
    if request.time_limit_s:
        policy["activeDeadlineSeconds"] = round(request.time_limit_s)
    named = {"name": request.name, "labels": {"app.kubernetes.io/managed-by": "aiinfra"}}
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {**named, "namespace": request.namespace} if request.namespace else named,
        "spec": {
            "mpiImplementation": "OpenMPI",
            "slotsPerWorker": request.ranks_per_worker,
            "launcherCreationPolicy": "WaitForWorkersReady",
            "runPolicy": policy,
            # A run that was cut off is resumed by a job with `resume`, not started anew by the operator.
            "mpiReplicaSpecs": {
                "Launcher": _replicas(1, launcher, volumes),
                "Worker": _replicas(request.workers, worker, [*volumes, shm]),
            },
        },
    }


def _replicas(count: int, container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "replicas": count,
        "restartPolicy": "Never",
        "template": {"spec": {"containers": [container], "volumes": volumes}},
    }


def _limits(request: KubernetesRequest) -> dict[str, str]:
    """What a worker may use, as quantities of Kubernetes."""
    n = request.ranks_per_worker
    mebibytes = math.ceil(n * request.memory_per_rank_bytes / 2**20)
    limits = {"cpu": str(n * request.cpus_per_rank), "memory": f"{mebibytes}Mi"}
    return limits | ({request.gpu_resource: str(n * request.gpus_per_rank)} if request.gpus_per_rank else {})
