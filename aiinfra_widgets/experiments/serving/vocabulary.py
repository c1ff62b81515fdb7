"""What is predicted and measured of a service under load."""

from __future__ import annotations

from ...quantities import Quantity

RATE = "requests/s"
#: Columns of the record of requests. Times are monotonic seconds; a time that never came is empty. `sent_s` is when the load
#: really came to it, however early it was meant to arrive. An id is unique among the rows of one incarnation and writer.
REQUESTS = (
    "id", "arrived_s", "started_s", "ended_s", "received_s", "server", "outcome", "tries", "batch", "first_token_s", "size", "sent_s",
)  # fmt: skip

QUANTITIES = (
    Quantity("mean_response_s", "Mean response time", "s", "From when a request was meant to arrive until its answer is back.", "lower"),
    Quantity("mean_service_s", "Service", "s", "Mean time that a server works on a request.", "lower", part="compute"),
    Quantity("dispatch_time_s", "Way back", "s", "From the end of the service until the desk has it.", "lower", part="communication"),
    Quantity("p50_response_s", "Median response", "s", "Half of the answers are back within this time.", "lower"),
    Quantity("p95_response_s", "95th percentile", "s", "Nineteen of twenty answers are back within this time.", "lower"),
    Quantity("p99_response_s", "99th percentile", "s", "All but one of a hundred answers are back within this time.", "lower"),
    Quantity("p95_ttft_s", "95th percentile to first token", "s", "From arrival to the first token of the answer.", "lower"),
    Quantity("mean_tpot_s", "Time per token", "s", "Mean time between two tokens of an answer, after the first.", "lower"),
    Quantity("queue_length", "Queue length", "requests", "Mean number of requests that wait.", "lower"),
    Quantity("arrived_per_s", "Offered", RATE, "Requests that arrived, per second.", "neither"),
    Quantity("completed_per_s", "Answered", RATE, "Answers per second.", "higher"),
    Quantity("failed_per_s", "Failed", RATE, "Requests rejected, given up or left over, per second.", "lower"),
    Quantity("failed_frac", "Failed", "frac", "Share of the requests that were rejected or given up.", "lower"),
    Quantity("slo_goodput_per_s", "Goodput", RATE, "Answers per second that kept the promise.", "higher"),
    Quantity("above_slo_s", "Time above the promise", "s", "Time in which one answer of twenty broke the promise.", "lower"),
    Quantity("batch_size", "Batch", "requests", "Mean number of requests that are served together.", "neither"),
    Quantity("lateness_s", "Generator lateness", "s", "How late the load itself was, at worst.", "lower", combine="max"),
    Quantity("energy_per_request_j", "Energy per request", "J", "Energy of the machine for each answer.", "lower"),
    Quantity("cost_per_million_requests_usd", "Cost per million answers", "USD", "Price of the servers for a million answers.", "lower"),
)  # fmt: skip
