"""How much work requests are: the same service times for theory, simulation and the real servers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelInputError, near
from ._check import need
from .queue_arrivals import Array, read_trace

ServiceKind = Literal["deterministic", "exponential", "hyperexponential", "gamma", "trace"]
#: Each kind of service, and the variability that it has unless another is asked for.
SERVICE_KINDS: dict[str, float | None] = {
    "deterministic": 0.0,
    "exponential": 1.0,
    "hyperexponential": 4.0,
    "gamma": 0.25,
    "trace": None,
}


class ServiceTimes:
    """How long requests keep a server, one draw each, fetched piece by piece; mean and variability may change.

    Args:
        kind: "deterministic", "exponential", "hyperexponential" (SCV above 1, two exponentials with balanced means),
            "gamma" (SCV below 1; 1/k is Erlang's with k stages), or "trace".
        mean_s: Mean service time. Without it a trace keeps its own mean.
        scv: Squared coefficient of variation; left out: `SERVICE_KINDS`.
        seed: Of the draws.
        times_s: trace: service times, given out in order and from the start again.

    Raises:
        ModelInputError: An unknown kind, a mean that is not positive, a variability that the kind cannot have, or
            times that are missing, negative or not finite.
    """

    def __init__(
        self,
        kind: ServiceKind,
        mean_s: float | None = None,
        *,
        scv: float | None = None,
        seed: int = 0,
        times_s: ArrayLike | None = None,
    ) -> None:
        if kind not in SERVICE_KINDS:
            raise ModelInputError(f"no service times {kind!r}; {near(kind, SERVICE_KINDS)}")
        need("seed", seed, whole=True)
        self.kind = kind
        draws = np.random.SeedSequence([seed, 2]).spawn(2)  # not the draws of arrivals with the same seed
        self._size, self._pick = (np.random.default_rng(s) for s in draws)
        self._times: Array = np.empty(0)
        self._at = 0
        if kind == "trace":
            self._times = read_trace("service times", times_s, ordered=False)
            need("mean of the service times", float(np.mean(self._times)), above=True)
            mean_s = float(np.mean(self._times)) if mean_s is None else mean_s
        elif times_s is not None:
            raise ModelInputError(f"{kind} service takes no times_s; use kind 'trace', or leave the times out")
        self.change(mean_s, scv)

    def change(self, mean_s: float | None = None, scv: float | None = None) -> None:
        """Set mean and variability of the draws from now on; what is left out is the kind's own variability.

        Raises:
            ModelInputError: As the class.
        """
        need("mean_s", mean_s, above=True, hint="the mean service time of one request")
        if self.kind == "trace":
            if scv is not None:
                raise ModelInputError(f"a trace has its own variability, got scv {scv:g}; leave scv out")
            scv = float(np.var(self._times) / np.mean(self._times) ** 2)
        self.scv = _allowed_scv(self.kind, scv)
        self.mean_s = float(mean_s or 0.0)

    def take(self, count: int) -> Array:
        """Return the service times of the next `count` requests, in seconds.

        Raises:
            ModelInputError: A negative count.
        """
        need("count", count, whole=True)
        count = int(count)
        if self.kind == "trace":
            index = (self._at + np.arange(count)) % len(self._times)
            self._at = (self._at + count) % len(self._times)
            return self._times[index] * (self.mean_s / float(np.mean(self._times)))
        if self.kind == "deterministic":
            return np.full(count, self.mean_s)
        if self.kind == "gamma":
            return self._size.gamma(1 / self.scv, self.scv * self.mean_s, count)
        draws = self._size.standard_exponential(count) * self.mean_s
        if self.kind == "hyperexponential":
            share, short, long = balanced_branches(self.scv)
            draws *= np.where(self._pick.random(count) < share, short, long)
        return draws


def service_times(count: int, kind: ServiceKind, mean_s: float | None = None, **options: Any) -> Array:
    """Return the service times of `count` requests, in seconds; options, errors and kinds as `ServiceTimes`.

    Raises:
        ModelInputError: As `ServiceTimes`.

    Valid when: independent of the arrivals. Off by: exact draws. Source: Tijms 2003, appendix B, for balanced means.
    """
    return ServiceTimes(kind, mean_s, **options).take(count)


def service_kind(scv: float) -> ServiceKind:
    """Return the kind of service that has this variability: deterministic, gamma, exponential or hyperexponential.

    Raises:
        ModelInputError: A negative variability.

    Valid when: mean and variability are all that is known. Off by: two moments do not fix a distribution; tails differ.
    Source: two-moment fits, Tijms 2003, appendix B.
    """
    need("scv", scv)
    if scv in {0, 1}:
        return "exponential" if scv else "deterministic"
    return "gamma" if scv < 1 else "hyperexponential"


def balanced_branches(scv: Any) -> tuple[Any, Any, Any]:
    """Return (share, mean of that branch, mean of the other) of two exponentials with mean 1 and balanced means.

    Both branches carry half of the work. With SCV 1 both are the same exponential.
    """
    share = (1 + ((scv - 1) / (scv + 1)) ** 0.5) / 2
    return share, 1 / (2 * share), 1 / (2 * (1 - share))


def _allowed_scv(kind: str, scv: float | None) -> float:
    if scv is None:
        scv = SERVICE_KINDS[kind]
    need("scv", scv)
    scv = float(scv or 0.0)
    fine = {"deterministic": scv == 0, "exponential": scv == 1, "hyperexponential": scv > 1, "gamma": 0 < scv < 1}
    if not fine.get(kind, True):
        allowed = {"deterministic": "0", "exponential": "1", "hyperexponential": "> 1", "gamma": "> 0 and < 1"}[kind]
        raise ModelInputError(
            f"scv of {kind} service must be {allowed}, got {scv:g}; "
            "take deterministic for 0, gamma below 1, exponential for 1, hyperexponential above"
        )
    return scv
