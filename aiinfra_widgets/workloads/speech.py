"""Words told apart by a CNN over their log-mel spectrogram, which the net computes itself from the sound.

# B samples, T frames, W samples of a frame, F frequencies, M mel bands, C channels, H x M pictures of H = T frames
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .axes import Axes
from .cut_layers import Columns, Product, Rows, draw, he_std, pair
from .facts import WorkloadFacts
from .image import KERNEL, Block
from .parts import Net, Part
from .speech_facts import BINS, HOP, MELS, SAMPLE_RATE_HZ, WINDOW, WORDS

#: Added to the power before the logarithm: a sound 60 dB below full scale still counts.
POWER_FLOOR = 1e-6
#: The logarithms are brought to mean 0 and variance 1, about.
LOG_MEAN, LOG_STD = -12.0, 1.8


def fourier() -> NDArray[np.float64]:
    """Return the matrix (2 F, W): a Hann window, times cosine and then sine of every frequency."""
    n = np.arange(WINDOW)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)) * 2 / WINDOW
    phase = 2 * np.pi * np.arange(BINS)[:, None] * n / WINDOW
    return np.concatenate([np.cos(phase), np.sin(phase)]) * window


def mel_bands() -> NDArray[np.float64]:
    """Return triangles (M, F) that overlap by half and are equally wide in mel = 2595 log10(1 + f / 700 Hz)."""
    hz = np.arange(BINS) * SAMPLE_RATE_HZ / WINDOW
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise, fall = (hz - low) / (centre - low), (high - hz) / (high - centre)
    return np.maximum(np.minimum(rise, fall), 0)


class Spectrum(nn.Module):
    """The log-mel spectrogram. Its matrices are fixed and made anew in every process, so they are in no state."""

    fourier: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fourier", torch.from_numpy(fourier().astype(np.float32)), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_bands().astype(np.float32)), persistent=False)

    def forward(self, sound_BN: Tensor) -> Tensor:  # noqa: N803
        """Return pictures (B, 1, T, M), seen as height and width, of sounds (B, N)."""
        frames_BTW = sound_BN.unfold(1, WINDOW, HOP)  # noqa: N806
        waves = F.linear(frames_BTW, self.fourier).square()
        mel_BTM = F.linear(waves[..., :BINS] + waves[..., BINS:], self.mel)  # noqa: N806
        return (((mel_BTM + POWER_FLOOR).log() - LOG_MEAN) / LOG_STD)[:, None]


class Stem(nn.Module):
    """The spectrogram; two convolutions, each with a rectifier and a maximum over 2 x 2: tp ranks share their channels."""

    def __init__(self, channels: int, axes: Axes) -> None:
        super().__init__()
        self.spectrum = Spectrum()
        self.conv1 = Columns(axes, 1, channels, KERNEL)
        self.conv2 = Rows(axes, channels, 2 * channels, KERNEL)

    def forward(self, sound_BN: Tensor) -> Tensor:  # noqa: N803
        """Return (B, 2 C, T / 4, M / 4) of sounds (B, N)."""
        inner = F.max_pool2d(F.relu(self.conv1(self.spectrum(sound_BN))), 2)
        return F.max_pool2d(F.relu(self.conv2(inner)), 2)


class Head(nn.Module):
    """The mean over time, so that a word may come early or late; a dense layer over channels and bands."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.linear = Product(channels * bands, len(WORDS))

    def forward(self, x_BCHM: Tensor) -> Tensor:  # noqa: N803
        """Return logits (B, words)."""
        logits: Tensor = self.linear(F.relu(x_BCHM).mean(2).flatten(1))
        return logits


def net(facts: WorkloadFacts) -> Net:
    """Return the parts: stem, residual blocks, head."""
    width, depth = facts.width, facts.depth
    cost = facts.cost_of_parts()
    blocks = [f"block{i + 1}" for i in range(depth)]
    parts = (
        Part("stem", partial(Stem, width), pair("conv1", "conv2"), cost=cost["stem"]),
        *(Part(name, partial(Block, 2 * width), pair("conv1", "conv2"), cost=cost[name]) for name in blocks),
        Part("head", lambda axes: Head(2 * width, MELS // 4), cost=cost["head"]),
    )

    def std_of(name: str, parameter: nn.Parameter) -> float:
        if parameter.ndim == 1:
            return 0.0
        last = name.startswith("block") and name.endswith("conv2.weight")
        return he_std(parameter, 2 / depth if last else 1.0 if name.startswith("head") else 2.0)

    return Net(parts, partial(draw, std_of=std_of), heads=width)
