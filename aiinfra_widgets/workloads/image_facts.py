"""What is known of the image workload before anything is loaded. Pure.

Legend: C channels (the width), d blocks in each of the two stages (the depth).
"""

from __future__ import annotations

from .facts import Layer, WorkloadFacts, conv, elementwise, keeping, linear, loss, pool, relu, residual_block

SIZE = 8
CLASSES = 10


def layers(width: int, depth: int) -> tuple[Layer, ...]:
    """Return a stem, `depth` residual blocks at 8 x 8, a step down to 4 x 4 and 2 C, `depth` blocks there, and the head."""
    half, wide = SIZE // 2, 2 * width
    first = [layer for i in range(depth) for layer in residual_block(f"block{i + 1}", width, SIZE)]
    second = [layer for i in range(depth, 2 * depth) for layer in residual_block(f"block{i + 1}", wide, half)]
    return (
        keeping(conv("stem", 1, width, SIZE, first=True), SIZE**2),
        *first,
        keeping(pool("down.pool", width, SIZE), width * SIZE**2, width * half**2),
        keeping(conv("down.conv", width, wide, half), width * half**2),
        *second,
        keeping(relu("head.relu", wide * half**2), wide * half**2),
        elementwise("head.mean", wide * half**2, wide),
        keeping(linear("head.linear", wide, CLASSES), wide),
        keeping(loss(CLASSES), CLASSES, 1),
    )


ROWS = (
    WorkloadFacts(
        name="digits-resnet",
        title="Handwritten digits, residual CNN of any size",
        help="The digits of scikit-learn; blocks of two convolutions and a shortcut, as wide and as deep as you like.",
        task="classification",
        quality="accuracy_frac",
        goal=0.98,
        goal_steps=300,
        train_samples=1437,
        test_samples=360,
        default_batch=128,
        default_lr=2e-3,
        sample_shape_of=lambda width, depth: (1, SIZE, SIZE),
        layers_of=layers,
        width=32,
        depth=2,
        sizable=True,
        family="image",
        optimizer="adamw",
        width_range=(4, 1024),
        depth_range=(1, 32),
    ),
)
