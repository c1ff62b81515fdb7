"""The workloads: what is trained, on which data, to which quality. Families of larger nets have files of their own.

Pure, like `facts`: a prediction can be made in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UnknownNameError, near
from . import clicks_facts, image_facts, language_facts, physics_facts, speech_facts
from .facts import Layer, WorkloadFacts, perceptron, small_cnn


def _fixed(*sizes: int) -> Callable[[int, int], tuple[Layer, ...]]:
    return lambda width, depth: perceptron(*sizes)


def _shape(*shape: int) -> Callable[[int, int], tuple[int, ...]]:
    return lambda width, depth: shape


_ROWS = (
    WorkloadFacts(
        name="digits-perceptron",
        title="Handwritten digits, perceptron 64-128-10",
        help="1 797 real digits of 8 x 8 pixels that ship with scikit-learn; one hidden layer.",
        task="classification",
        quality="accuracy_frac",
        goal=0.95,
        goal_steps=300,
        train_samples=1437,
        test_samples=360,
        default_batch=256,
        default_lr=0.1,
        sample_shape_of=_shape(64),
        layers_of=_fixed(64, 128, 10),
    ),
    WorkloadFacts(
        name="digits-cnn",
        title="Handwritten digits, small CNN",
        help="The same digits, two 3 x 3 convolutions: much arithmetic for a small gradient.",
        task="classification",
        quality="accuracy_frac",
        goal=0.97,
        goal_steps=300,
        train_samples=1437,
        test_samples=360,
        default_batch=256,
        default_lr=0.05,
        sample_shape_of=_shape(1, 8, 8),
        layers_of=lambda width, depth: small_cnn(),
    ),
    WorkloadFacts(
        name="linear-regression",
        title="Linear regression, a million points",
        help="y = a x + b + noise, standardised: two parameters, so a step is almost only overhead.",
        task="regression",
        quality="held_out_loss",
        goal=0.0105,
        goal_steps=200,
        train_samples=1_000_000,
        test_samples=100_000,
        default_batch=1024,
        default_lr=0.02,
        sample_shape_of=_shape(1),
        layers_of=_fixed(1, 1),
        best_held_out_loss=0.01 / 1.01,
    ),
    WorkloadFacts(
        name="dense-100-64-1",
        title="Dense net 100-64-1 from archives on disk",
        help="Regression read from train.npz and test.npz (arrays x and y); your own files may take their place.",
        task="regression",
        quality="held_out_loss",
        goal=0.04,
        goal_steps=600,
        train_samples=16_384,
        test_samples=4_096,
        default_batch=256,
        default_lr=0.03,
        sample_shape_of=_shape(100),
        layers_of=_fixed(100, 64, 1),
        best_held_out_loss=0.01,
        reads_archives=True,
    ),
    WorkloadFacts(
        name="net-10-5-2",
        title="Classifier 10-5-2",
        help="Two classes of generated points: 67 parameters, the smallest net that communicates.",
        task="classification",
        quality="accuracy_frac",
        goal=0.95,
        goal_steps=300,
        train_samples=4_096,
        test_samples=1_024,
        default_batch=256,
        default_lr=0.1,
        sample_shape_of=_shape(10),
        layers_of=_fixed(10, 5, 2),
    ),
    WorkloadFacts(
        name="synthetic",
        title="Square layers of any size",
        help="Regression with `depth` layers of `width` x `width`: a slider for the size of the gradient.",
        task="regression",
        quality="held_out_loss",
        goal=0.05,
        goal_steps=100,
        train_samples=2_048,
        test_samples=256,
        default_batch=256,
        default_lr=0.1,
        sample_shape_of=lambda width, depth: (width,),
        layers_of=lambda width, depth: perceptron(*(width,) * (depth + 1)),
        best_held_out_loss=0.0,
        sizable=True,
    ),
)
_FAMILIES = (image_facts, language_facts, speech_facts, clicks_facts, physics_facts)
_CATALOG: dict[str, WorkloadFacts] = {
    row.name: row for row in (*_ROWS, *(row for family in _FAMILIES for row in family.ROWS))
}


def names() -> tuple[str, ...]:
    """Return the names of all workloads, in the order in which they are offered."""
    return tuple(_CATALOG)


def facts(name: str) -> WorkloadFacts:
    """Return what is known of one workload, at its default size.

    Raises:
        UnknownNameError: With the near matches.
    """
    try:
        return _CATALOG[name]
    except KeyError:
        raise UnknownNameError(f"no workload {name!r}; {near(name, _CATALOG)}") from None
