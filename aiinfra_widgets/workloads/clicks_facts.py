"""What is known of the recommendation workload before anything is loaded. Pure.

A sample is one row of whole numbers (int64): counts (how often ...), then one id for each table. They stay whole numbers up
to the net, because half precision would make other ids of them.

Legend: W width of the dense layers, D = W / 4 width of an embedding, d pairs of layers above the interaction (the depth).
"""

from __future__ import annotations

from .facts import Layer, WorkloadFacts, keeping, linear, loss, relu

#: Whole numbers of a sample that are counts.
COUNTS = 8
#: Different ids of each table, the most first.
TABLES = (10_000, 2_000, 1_000, 500, 200, 100, 50, 20)
ROWS_OF_TABLES = sum(TABLES)
#: Vectors that meet in the interaction: one of the counts and one of each table.
VECTORS = 1 + len(TABLES)
PAIRS = VECTORS * (VECTORS - 1) // 2


def embedding_width(width: int) -> int:
    """Return D for dense layers of width W."""
    return width // 4


def layers(width: int, depth: int) -> tuple[Layer, ...]:
    """Return the tables, the dense layers below, all dot products of pairs, `depth` pairs of dense layers above, the head."""
    wide = embedding_width(width)
    embedded, meeting, seen = len(TABLES) * wide, VECTORS * wide, wide + PAIRS
    dims = {"vocab": ROWS_OF_TABLES, "width": wide, "tokens": len(TABLES)}
    square = {"vectors": VECTORS, "width": wide}
    above: list[Layer] = []
    for i in range(1, depth + 1):
        above += [
            keeping(linear(f"top{i}.linear1", seen, width), seen)
            if i == 1
            else linear(f"top{i}.linear1", width, width),
            keeping(relu(f"top{i}.relu1", width), width),
            linear(f"top{i}.linear2", width, width),
            keeping(relu(f"top{i}.relu2", width), width),
        ]
    tables = Layer(
        "tables", "embedding", 0, ROWS_OF_TABLES * wide, COUNTS + len(TABLES), COUNTS + embedded, dims, False
    )
    return (
        keeping(tables, 0, len(TABLES)),
        keeping(linear("bottom.linear1", COUNTS, width, first=True), COUNTS + embedded),  # a view keeps the whole row
        keeping(relu("bottom.relu1", width), width),
        linear("bottom.linear2", width, wide),
        keeping(relu("bottom.relu2", wide), wide),
        keeping(Layer("bottom.meet", "interaction", 2 * VECTORS**2 * wide, 0, meeting, seen, square, True), meeting),
        *above,
        linear("head", width, 1),
        keeping(loss(1), 2),
    )


ROWS = (
    WorkloadFacts(
        name="clicks-dlrm",
        title="Clicks, embeddings and their interaction (DLRM)",
        help="Will it be clicked? Counts and ids of Zipf popularity; a known teacher draws the clicks, so the best area is known.",
        task="binary",
        quality="auc_frac",
        goal=0.828,
        goal_steps=500,
        train_samples=300_000,
        test_samples=20_000,
        default_batch=512,
        default_lr=3e-3,
        sample_shape_of=lambda width, depth: (COUNTS + len(TABLES),),
        layers_of=layers,
        best_auc_frac=0.85305,
        width=64,
        depth=1,
        sizable=True,
        family="clicks",
        optimizer="adamw",
        width_range=(16, 4096),
        depth_range=(1, 16),
    ),
)
