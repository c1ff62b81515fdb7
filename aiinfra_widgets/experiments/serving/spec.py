"""What may be asked of a service under load."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import field_validator, model_validator

from ...experiment import Fields, Spec, knob
from ...knobs import NODES

SERVICES = ("synthetic", "digits-cnn", "gpt-tiny")
ARRIVALS = ("poisson", "constant", "bursty", "trace", "http")
DISPATCH = ("central", "round-robin", "shortest-queue", "two-choices")
BATCHING = ("none", "fixed", "dynamic", "continuous")
AUTOSCALERS = ("none", "target-utilization", "queue-length", "predictive")


class ServingSpec(Spec):
    """An open-loop load on `nodes` servers, with one rank more that generates the load and hands it out."""

    coordinators: ClassVar[int] = 1

    nodes: int = knob(
        1,
        "Servers: MPI ranks that answer requests.",
        label="Servers",
        ge=NODES.low,
        le=NODES.high,
        live=True,
        group="System",
    )
    service: str = knob(
        "synthetic",
        "What a server does: sleep for a drawn time (needs no core), or compute with a net.",
        choices=SERVICES,
        group="Work",
    )
    mean_service_s: float = knob(
        0.02,
        "Mean time of one synthetic service.",
        unit="s", ge=1e-5, le=10.0, live=True, log=True, group="Work",
    )  # fmt: skip
    service_scv: float = knob(
        1.0,
        "Variability of the service: variance over squared mean (0 all equal, 1 exponential, above 1 a few very long ones).",
        label="Service variability", ge=0.0, le=50.0, live=True, group="Work",
    )  # fmt: skip
    prompt_tokens: int = knob(
        16, "Tokens that a request of the language model brings along.", ge=1, le=128, group="Work"
    )
    new_tokens: int = knob(
        16, "Mean number of tokens that the language model answers with.", ge=1, le=128, live=True, group="Work"
    )
    arrivals: str = knob(
        "poisson", "How requests arrive; http takes them from a real web front on this machine.",
        choices=ARRIVALS, group="Load",
    )  # fmt: skip
    arrival_rate_per_s: float = knob(
        25.0, "Offered load: requests per second on average.", label="Offered load",
        unit="1/s", ge=0.01, le=20000.0, live=True, log=True, group="Load",
    )  # fmt: skip
    burst_ratio: float = knob(
        10.0, "Bursty arrivals: the rate within a burst over the rate between two; a tenth of the time is burst.",
        ge=1.1, le=100.0, group="Load",
    )  # fmt: skip
    burst_s: float = knob(1.0, "Bursty arrivals: mean length of a burst.", unit="s", ge=0.01, le=600.0, group="Load")
    trace_file: str = knob(
        "", "CSV of arrivals with a column arrival_s (seconds, ascending), for arrivals=trace.", group="Load"
    )
    dispatch: str = knob(
        "central", "Who gets a request: one queue for all, or a queue for each server.",
        choices=DISPATCH, live=True, group="System",
    )  # fmt: skip
    batching: str = knob(
        "none",
        "How many requests a server takes at once: fixed waits for a full batch, dynamic for a deadline too; continuous is for gpt-tiny.",
        choices=BATCHING, live=True, group="System",
    )  # fmt: skip
    max_batch: int = knob(8, "Most requests in one batch.", ge=1, le=64, live=True, group="System")
    batch_wait_s: float = knob(
        0.01, "Dynamic batching: longest wait for a fuller batch.", unit="s", ge=0.0, le=10.0, live=True, group="System"
    )
    queue_limit: int = knob(
        0, "Admission: a request that finds so many waiting is rejected; 0 is no limit.",
        ge=0, le=1_000_000, live=True, group="System",
    )  # fmt: skip
    timeout_s: float = knob(
        0.0, "A client gives up after this time; 0 is never.", unit="s", ge=0.0, le=600.0, live=True, group="Load"
    )
    retry_budget_frac: float = knob(
        0.0, "Clients try again after a timeout or a rejection, while retries stay under this share of the requests.",
        label="Retry budget", ge=0.0, le=1.0, live=True, group="Load",
    )  # fmt: skip
    slo_s: float = knob(
        0.2, "Promised response time; what is slower is no goodput.", label="Promise (SLO)",
        unit="s", ge=1e-4, le=600.0, live=True, group="Load",
    )  # fmt: skip
    autoscaler: str = knob(
        "none", "Who changes the number of servers besides you.", choices=AUTOSCALERS, live=True, group="System"
    )
    autoscaler_target: float = knob(
        0.6, "Utilisation that the autoscaler aims at; for queue-length: waiting requests per server.",
        ge=0.05, le=50.0, live=True, group="System",
    )  # fmt: skip
    most_servers: int = knob(4, "The autoscaler never asks for more.", ge=1, le=256, live=True, group="System")
    slow_node: int = knob(
        -1, "Position of the server that is slowed down; -1 slows none.", label="Slow server",
        ge=-1, le=511, live=True, group="Load",
    )  # fmt: skip
    slow_factor: float = knob(
        2.0, "How many times longer the slow server takes (injected).", ge=1.0, le=20.0, live=True, group="Load"
    )
    duration_s: float = knob(
        60.0, "Seconds of load after which the run is done.", unit="s", ge=0.5, le=86400.0, log=True, group="Run"
    )
    window_s: float = knob(
        0.1, "Time over which live figures are averaged; one tick.", unit="s", ge=0.02, le=10.0, group="Run"
    )
    region: str = knob("World", "Country or region whose grid's yearly average gives the carbon.", group="Bill")
    price_usd_per_node_hour: float = knob(
        0.0425,
        "What one server costs for an hour (assumed; default: one of two vCPUs of a general-purpose cloud machine).",
        unit="USD", ge=0.0, le=1000.0, group="Bill",
    )  # fmt: skip

    @field_validator("trace_file")
    @classmethod
    def _from_anywhere(cls, name: str) -> str:
        """Ranks may have been started in another folder."""
        return str(Path(name).expanduser().absolute()) if name else ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batching == "continuous" and self.service != "gpt-tiny":
            raise ValueError(
                f"batching: got 'continuous' with service {self.service!r}; it joins requests between two tokens, so it needs "
                "service=gpt-tiny; use fixed or dynamic instead"
            )
        if self.arrivals == "trace" and not self.trace_file:
            raise ValueError("trace_file: got nothing; arrivals=trace needs a CSV file with a column arrival_s")
        if self.slow_node >= self.nodes and self.slow_node > 0:
            raise ValueError(
                f"slow_node: got {self.slow_node}; allowed with nodes={self.nodes}: -1 (none) to {self.nodes - 1}; "
                "change both together, or set slow_node=-1 first"
            )
        if self.autoscaler != "none" and self.nodes > self.most_servers:
            raise ValueError(
                f"nodes: got {self.nodes}; the autoscaler may use {self.most_servers} at most; raise most_servers"
            )
        if self.autoscaler in {"target-utilization", "predictive"} and self.autoscaler_target >= 1:
            raise ValueError(
                f"autoscaler_target: got {self.autoscaler_target:g}; a utilisation is below 1; queue-length alone takes more"
            )
        if self.batching == "fixed" and 0 < self.queue_limit < self._fills_a_batch():
            raise ValueError(
                f"queue_limit: got {self.queue_limit}; batches that wait until {self.max_batch} are there would never fill; "
                f"allowed: 0 (no limit), or from {self._fills_a_batch()}; or take batching=dynamic"
            )
        return self

    def _fills_a_batch(self) -> int:
        """So many wait before one queue at least holds a full batch, with as many servers as there may ever be."""
        most = max(self.nodes, self.most_servers if self.autoscaler != "none" else 0)
        queues = 1 if self.dispatch == "central" else most
        return queues * (self.max_batch - 1) + 1


class Kill(Fields):
    """Which server dies."""

    server: int = knob(0, "Position of the server that is killed.", ge=0, le=511)
