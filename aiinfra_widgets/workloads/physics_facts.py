"""What is known of the physics workload before anything is loaded. Pure.

The equation: u_t = k u_xx for -1 <= x <= 1 and 0 <= t <= 1, u = 0 at both ends. Its solution is known: each sine decays by
itself. A sample is one point (x, t, f): where f is 1 the net is to answer with the weighted residual u_t - k u_xx, which
should be 0; where f is 0, with u itself, which is known at the beginning and at the ends. Held-out points all have f = 0 and
lie anywhere, so the held-out loss is the squared error against the exact solution.

Legend: W width, d blocks of two layers (the depth); three numbers travel through every neuron: its value, the value's
derivative by x, and the value's residual. So every matrix is applied to three rows per sample.
"""

from __future__ import annotations

from dataclasses import replace

from .facts import Layer, WorkloadFacts, elementwise, keeping, linear, loss

#: k, in units of length^2 / time.
DIFFUSIVITY = 0.1
#: (wave number in units of pi, amplitude) of the sines at t = 0.
SINES = ((1, 1.0), (3, 0.5))
#: Of the residual beside the error of u: residuals are larger by the rate at which the fastest sine decays.
RESIDUAL_WEIGHT = 0.2
STREAMS = 3
INPUTS = 3
#: Passes over a layer's W numbers in `physics.bent`: bias and nine operations, three numbers stacked, three joined to the flag.
TANH_PASSES = 16


def layers(width: int, depth: int) -> tuple[Layer, ...]:
    """Return the first layer, `depth` blocks of two, and the head; tanh behind each, with its derivatives."""
    streams = STREAMS * width

    def tanh(name: str) -> Layer:
        """Its passes are counted one by one; it keeps what came in, its own value and slope, and three products."""
        made = replace(elementwise(name, streams, streams), dims={"elements": width, "operations": TANH_PASSES})
        return keeping(made, streams + 5 * width)

    def dense(name: str, outputs: int) -> Layer:
        return keeping(linear(name, width, outputs, rows=STREAMS), streams)

    blocks: list[Layer] = []
    for i in range(1, depth + 1):
        for j in (1, 2):
            blocks += [dense(f"block{i}.linear{j}", width), tanh(f"block{i}.tanh{j}")]
    return (
        keeping(linear("lift.linear", 2, width, first=True), INPUTS),
        keeping(tanh("lift.tanh"), 5 * width),  # its slopes came in as views of the weight
        *blocks,
        dense("head.linear", 1),
        keeping(elementwise("head.answer", STREAMS + 1, 1), 2),
        keeping(loss(1), 2),
    )


ROWS = (
    WorkloadFacts(
        name="heat-pinn",
        title="Heat equation, physics-informed net",
        help="A net that is told the equation and the edges, not the solution; it is judged by the exact one.",
        task="regression",
        quality="held_out_loss",
        goal=3e-4,
        goal_steps=1_800,
        train_samples=8_192,
        test_samples=2_048,
        default_batch=512,
        default_lr=3e-3,
        sample_shape_of=lambda width, depth: (INPUTS,),
        layers_of=layers,
        best_held_out_loss=0.0,
        width=48,
        depth=1,
        sizable=True,
        family="physics",
        optimizer="adamw",
        width_range=(8, 4096),
        depth_range=(1, 16),
    ),
)
