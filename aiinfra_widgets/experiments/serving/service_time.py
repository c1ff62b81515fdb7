"""How long a server takes for a request and for a batch, before anything is run: as asked, or from calibration alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...machine.profile import Machine
from ...models import ServiceTimes, service_kind
from ...workloads import catalog
from ...workloads.calibrated import AnswerTimes
from ...workloads.gpt_facts import GptFacts, gpt_facts
from .load import mean_size
from .spec import ServingSpec

Array = np.ndarray[Any, np.dtype[np.float64]]

#: Requests drawn to know the largest of a batch: its mean is then right within some 1 %.
DRAWS = 2**14
#: Beyond the quartiles of the probes: how far predictions and quiet measurements of both nets lay apart at most.
BAND_FRAC = 0.15


@dataclass(frozen=True)
class ServiceTime:
    """How long one server takes, by itself on its core. A slow server takes `slow_factor` times that.

    Attributes:
        mean_s, scv: Of one request alone: mean, and variance over squared mean.
        low_s, high_s: The band of the mean.
        batch_s, batch_scv: The same of 1, 2 ... requests that are served together, up to the largest batch that is asked
            for; shape (largest,). With continuous batching: of that many requests that share every step; the server
            then answers b / batch_s[b - 1] requests per second.
        base_s, per_item_s: The line base_s + per_item_s * b closest to batch_s.
        pause_s: How much longer a pass takes after a pause, in which others used the caches; not part of the mean.
        how: One clause: where the numbers come from.
    """

    mean_s: float
    scv: float
    low_s: float
    high_s: float
    batch_s: Array
    batch_scv: Array
    base_s: float
    per_item_s: float
    pause_s: float
    how: str


def service_time(spec: ServingSpec, machine: Machine) -> ServiceTime:
    """Return how long a server of `spec` takes.

    Args:
        spec: What is asked; the load does not matter.
        machine: Calibrated, unless the service is synthetic.

    Raises:
        ModelInputError: The machine is not calibrated, or was before answering was probed.

    Valid when: a core for each server, otherwise quiet; sizes of the language model are drawn as `Load` draws them.
    Off by: synthetic exact (the largest of a batch within 1 %). The CNN is predicted some 5 % too short, the language model
        up to 15 % too short in batches of 4 and 8, and up to a quarter where a neighbour keeps the shared cache busy.
        Too short for a server that rests between two requests: see `pause_s`.
    """
    if spec.service == "synthetic":
        sizes = _sizes(spec)
        sizes *= spec.mean_service_s / sizes.mean()
        mean, scv = _largest(np.broadcast_to(sizes, (_most(spec), DRAWS)))
        scv[0] = spec.service_scv
        return _told(mean, scv, spec.mean_service_s, spec.mean_service_s, 0.0, "as asked for")
    found = {w: _net(spec, AnswerTimes(machine, w)) for w in ("median", "q25", "q75")}
    mean, scv = found["median"]
    low, high = (float(found[w][0][0]) for w in ("q25", "q75"))
    low_s, high_s = min(low, mean[0]) * (1 - BAND_FRAC), max(high, mean[0]) * (1 + BAND_FRAC)
    pause_s = AnswerTimes(machine).pause_s("classify" if spec.service == "digits-cnn" else "decode", _most(spec))
    return _told(mean, scv, low_s, high_s, pause_s, "from single operations and tiny nets, as calibrated")


def _told(mean: Array, scv: Array, low_s: float, high_s: float, pause_s: float, how: str) -> ServiceTime:
    most = len(mean)
    item = max(float(np.polyfit(np.arange(1, most + 1), mean, 1)[0]), 0.0) if most > 1 else 0.0
    base = float(mean.mean()) - item * (most + 1) / 2
    return ServiceTime(float(mean[0]), float(scv[0]), float(low_s), float(high_s), mean, scv, base, item, pause_s, how)


def _most(spec: ServingSpec) -> int:
    return 1 if spec.batching == "none" else spec.max_batch


def _net(spec: ServingSpec, times: AnswerTimes) -> tuple[Array, Array]:
    """Return mean and variability for batches of 1, 2 ... requests."""
    b = np.arange(1.0, _most(spec) + 1)
    if spec.service == "digits-cnn":
        mean = times.classify_s(catalog.facts(spec.service).layers(), b)
        return mean, np.zeros_like(mean)
    facts = gpt_facts(spec.service)
    tokens = _tokens(spec, facts)
    if spec.batching != "continuous":
        return _largest(_language_s(spec, facts, times, b)[:, tokens - 1])
    # Prompts are read one by one as requests join; then all share each step.
    alone = times.prefill_s(facts, 1.0, spec.prompt_tokens)
    shared = _language_s(spec, facts, times, b) - times.prefill_s(facts, b, spec.prompt_tokens)[:, None]
    each = (alone * b)[:, None] + shared[:, tokens - 1]
    mean = each.mean(axis=1)
    return mean, each.var(axis=1) / mean**2


def _language_s(spec: ServingSpec, facts: GptFacts, times: AnswerTimes, b: Array) -> Array:
    """Return seconds until all of b requests have 1, 2 ... tokens, (len(b), most tokens); the prompt gives the first one."""
    cached = np.arange(spec.prompt_tokens + 1.0, facts.context)
    steps = times.decode_s(facts, b[:, None], cached)
    first = times.prefill_s(facts, b, spec.prompt_tokens)[:, None]
    done: Array = first + np.concatenate([np.zeros_like(first), np.cumsum(steps, axis=1)], axis=1)
    return done


def _sizes(spec: ServingSpec) -> Array:
    """Return the work of requests, drawn as `Load` draws it, in ascending order."""
    drawn = ServiceTimes(service_kind(spec.service_scv), mean_size(spec), scv=spec.service_scv, seed=spec.seed)
    return np.sort(drawn.take(DRAWS))


def _tokens(spec: ServingSpec, facts: GptFacts) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return whole tokens, at least one, that fit into the context with the prompt; ascending."""
    return np.clip(np.round(_sizes(spec)), 1, facts.context - spec.prompt_tokens).astype(int)


def _largest(each: Array) -> tuple[Array, Array]:
    """Return mean and variability of the largest of 1, 2 ... draws, where row b - 1 holds the ascending values for b draws."""
    rows, count = each.shape
    below = (np.arange(count + 1) / count)[None, :] ** np.arange(1, rows + 1)[:, None]
    weights = np.diff(below, axis=1)
    mean = (weights * each).sum(axis=1)
    return mean, (weights * (each - mean[:, None]) ** 2).sum(axis=1) / mean**2
