"""What is known of the speech workload before anything is loaded. Pure.

The front end is part of the net, as a row of fixed matrices, so that its arithmetic is counted like any other: windowed
frames times a Fourier matrix, squares, times a mel matrix, the logarithm.

Legend: C channels (the width), d residual blocks (the depth).
"""

from __future__ import annotations

from dataclasses import replace

from .facts import Layer, WorkloadFacts, conv, elementwise, keeping, linear, loss, pool, relu, residual_block

SAMPLE_RATE_HZ = 8_000
#: Pictures of FRAMES x MELS: a word of 0.65 s, seen every 20 ms through a window of 32 ms.
FRAMES, WINDOW, HOP = 32, 256, 160
SAMPLES = (FRAMES - 1) * HOP + WINDOW
#: Frequencies of the Fourier matrix, from 0; half the sampling rate itself is left out.
BINS = WINDOW // 2
MELS = 32
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _fixed(name: str, inputs: int, outputs: int) -> Layer:
    return replace(
        linear(name, inputs, outputs, rows=FRAMES, first=True), params=0, fixed_params=inputs * outputs, frozen=True
    )


def layers(width: int, depth: int) -> tuple[Layer, ...]:
    """Return the front end, two convolutions with pools, `depth` residual blocks, the mean over time and the head."""
    picture, half, quarter = FRAMES * MELS, FRAMES // 2, FRAMES // 4
    wide = 2 * width
    small = wide * quarter**2
    blocks = [layer for i in range(depth) for layer in residual_block(f"block{i + 1}", wide, quarter)]
    return (
        elementwise("stem.spectrum.frames", SAMPLES, FRAMES * WINDOW, first=True),
        _fixed("stem.spectrum.fourier", WINDOW, 2 * BINS),
        elementwise("stem.spectrum.power", FRAMES * 2 * BINS, FRAMES * BINS, first=True),
        _fixed("stem.spectrum.mel", BINS, MELS),
        elementwise("stem.spectrum.log", picture, picture, first=True),
        keeping(conv("stem.conv1", 1, width, FRAMES, first=True), picture),
        keeping(relu("stem.relu1", width * picture), width * picture),
        keeping(pool("stem.pool1", width, FRAMES), 0, width * half**2),
        keeping(conv("stem.conv2", width, wide, half), width * half**2),
        keeping(relu("stem.relu2", wide * half**2), wide * half**2),
        keeping(pool("stem.pool2", wide, half), 0, small),
        *blocks,
        keeping(relu("head.relu", small), small),
        elementwise("head.mean", small, wide * quarter),
        keeping(linear("head.linear", wide * quarter, len(WORDS)), wide * quarter),
        keeping(loss(len(WORDS)), len(WORDS), 1),
    )


ROWS = (
    WorkloadFacts(
        name="spoken-digits",
        title="Spoken digits, log-mel spectrogram and CNN",
        help="The words zero to nine from a formant synthesiser, 50 speakers with voices of their own; 10 others are held out.",
        task="classification",
        quality="accuracy_frac",
        goal=0.95,
        goal_steps=200,
        train_samples=2_000,
        test_samples=400,
        default_batch=64,
        default_lr=2e-3,
        sample_shape_of=lambda width, depth: (SAMPLES,),
        layers_of=layers,
        width=16,
        depth=1,
        sizable=True,
        family="speech",
        optimizer="adamw",
        width_range=(4, 512),
        depth_range=(1, 16),
    ),
)
