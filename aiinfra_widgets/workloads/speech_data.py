"""Ten words from a small formant synthesiser, each speaker with a voice of their own. Pure numpy.

Source and filter, as in Klatt (1980): a train of pulses (voice) and noise (breath) pass three resonators in a row, whose
centres glide from phoneme to phoneme; the noise of a consonant's narrow gap has a resonator of its own beside them.
The vowels' centres are the mean values of men in Peterson and Barney (1952), rounded.

The filters run one sample at a time for all words together: numpy works along the words.

# N words, T samples, K control points, P phonemes of a word
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import archives
from .datasets import FIXED_SEED, Split
from .facts import WorkloadFacts
from .speech_facts import SAMPLE_RATE_HZ, SAMPLES, WORDS

Floats = NDArray[np.float64]

CACHE_VERSION = 1
SPEAKERS_TRAIN, SPEAKERS_TEST = 50, 10
#: Control points lie 4 ms apart; between them the filters stand still.
CONTROL = 32
#: Seconds over which one phoneme glides into the next.
GLIDE_S = 0.03
#: Share of the sound that noise in the room may reach, by amplitude.
ROOM = (0.003, 0.1)


@dataclass(frozen=True, slots=True)
class Phoneme:
    """Targets of one sound: seconds, centres of three formants (Hz), loudness of voice and of breath through them, and
    loudness, centre and width (Hz) of a narrow gap's noise.
    """

    seconds: float
    formants: tuple[float, float, float]
    voice: float = 1.0
    breath: float = 0.02
    gap: float = 0.0
    gap_hz: float = 3000.0
    gap_width_hz: float = 1000.0


_P = Phoneme
PHONEMES = {
    "iy": _P(0.12, (270, 2290, 3010)),
    "ih": _P(0.10, (390, 1990, 2550)),
    "eh": _P(0.11, (530, 1840, 2480)),
    "ah": _P(0.11, (640, 1190, 2390)),
    "aa": _P(0.12, (730, 1090, 2440)),
    "ao": _P(0.12, (570, 840, 2410)),
    "uw": _P(0.15, (300, 870, 2240)),
    "ey": _P(0.09, (480, 2000, 2600)),
    "ow": _P(0.09, (500, 900, 2300)),
    "w": _P(0.07, (290, 610, 2150), voice=0.6),
    "r": _P(0.08, (310, 1060, 1380), voice=0.7),
    "n": _P(0.08, (250, 1400, 2500), voice=0.3),
    "v": _P(0.06, (220, 1100, 2080), voice=0.4, gap=0.05, gap_hz=2500, gap_width_hz=2500),
    "z": _P(0.09, (240, 1390, 2530), voice=0.3, gap=0.25, gap_hz=3600, gap_width_hz=600),
    "s": _P(0.12, (320, 1390, 2530), voice=0.0, gap=0.35, gap_hz=3600, gap_width_hz=600),
    "f": _P(0.10, (340, 1100, 2080), voice=0.0, gap=0.10, gap_hz=2500, gap_width_hz=3000),
    "th": _P(0.08, (320, 1290, 2540), voice=0.0, gap=0.06, gap_hz=3000, gap_width_hz=2500),
    "-": _P(0.05, (400, 1600, 2600), voice=0.0, breath=0.0),  # lips or tongue shut before a burst
    "t": _P(0.03, (400, 1600, 2600), voice=0.0, gap=0.5, gap_hz=3300, gap_width_hz=1500),
    "k": _P(0.03, (300, 1990, 2850), voice=0.0, gap=0.4, gap_hz=2000, gap_width_hz=500),
}
SPELLING = {
    "zero": "z iy r ow uw",
    "one": "w ah n",
    "two": "- t uw",
    "three": "th r iy",
    "four": "f ao r",
    "five": "f aa ih v",
    "six": "s ih - k s",
    "seven": "s eh v ah n",
    "eight": "ey iy - t",
    "nine": "n aa ih n",
}


def load(facts: WorkloadFacts, seed: int, cache: Path) -> Split:
    """Return sounds (N, T) and words (N,), train and test, of different speakers; the same for every seed.

    Raises:
        StorageError: The cache cannot be written.
    """

    def part(name: str, number: int, speakers: int, samples: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        def make() -> archives.Arrays:
            sounds, words = speak(speakers, samples, np.random.default_rng([FIXED_SEED, number]))
            return sounds.astype(np.float32), words.astype(np.float32)[:, None]

        path = cache / f"{facts.name}-v{CACHE_VERSION}" / f"{name}.npz"
        x, y = archives.read_or_make(path, SAMPLES, 1, make)
        return x, y[:, 0].astype(np.int64)

    return part("train", 0, SPEAKERS_TRAIN, facts.train_samples), part("test", 1, SPEAKERS_TEST, facts.test_samples)


def speak(speakers: int, samples: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """Return `samples` words (N, T) of amplitude below 1 and which words they are (N,), said by `speakers` in turn.

    A speaker has a pitch, a length of the throat that scales all formants, a tempo and a breathiness; every utterance
    departs from them a little, begins when it likes, and has its own loudness and noise of the room.
    """
    words = np.arange(samples) % len(WORDS)
    who = (np.arange(samples) // len(WORDS)) % speakers
    pitch_hz = np.exp(rng.uniform(np.log(90), np.log(240), speakers))
    # High voices come with short throats, about.
    throat = 0.92 + 0.22 * (np.log(pitch_hz / 90) / np.log(240 / 90)) + rng.uniform(-0.05, 0.05, speakers)
    tempo, breath = rng.uniform(0.85, 1.2, speakers), rng.uniform(0.5, 3.0, speakers)

    def about(voice: Floats, spread: float) -> Floats:
        varied: Floats = voice[who] * np.exp(spread * rng.standard_normal(samples))
        return varied

    tracks = _tracks(words, about(tempo, 0.06), about(throat, 0.02), rng)
    source = _pulses(about(pitch_hz, 0.05), rng)
    sounds = _resonate(source, tracks, about(breath, 0.1), rng)
    sounds /= np.abs(sounds).max(axis=1, keepdims=True)
    noise = np.exp(rng.uniform(np.log(ROOM[0]), np.log(ROOM[1]), (samples, 1)))
    sounds += noise * rng.standard_normal(sounds.shape)
    sounds *= np.exp(rng.uniform(np.log(0.2), np.log(0.7), (samples, 1)))
    return np.clip(sounds, -1, 1), words


def _tracks(words: NDArray[np.int64], tempo: Floats, throat: Floats, rng: np.random.Generator) -> Floats:
    """Return (8, K, N): three formants (Hz), voice, breath, and the gap's loudness, centre and width, over time."""
    controls = -(-SAMPLES // CONTROL)
    times = (np.arange(controls) + 0.5) * CONTROL / SAMPLE_RATE_HZ
    tracks = np.empty((8, controls, len(words)))
    for i, word in enumerate(words):
        said = [PHONEMES[p] for p in SPELLING[WORDS[word]].split()]
        seconds = np.array([p.seconds for p in said]) * np.exp(0.1 * rng.standard_normal(len(said))) / tempo[i]
        spare = SAMPLES / SAMPLE_RATE_HZ - seconds.sum()
        begin = rng.uniform(0.05, 0.95) * max(spare, 0.0)
        edges = begin + np.concatenate([[0.0], np.cumsum(seconds)])
        # A phoneme stands still in its middle; targets at both ends of that part, straight lines between.
        glide = np.minimum(GLIDE_S / 2, seconds / 3)
        points = np.stack([edges[:-1] + glide, edges[1:] - glide], 1).ravel()
        table = np.array([(*p.formants, p.voice, p.breath, p.gap, p.gap_hz, p.gap_width_hz) for p in said]).repeat(2, 0)
        table[:, :3] *= throat[i] * np.exp(0.03 * rng.standard_normal(3))
        for row in range(8):
            silent = 3 <= row <= 5
            ends = (points[0] - 2 * glide[0], points[-1] + 2 * glide[-1])
            values = table[:, row]
            if silent:
                tracks[row, :, i] = np.interp(times, [ends[0], *points, ends[1]], [0.0, *values, 0.0])
            else:
                tracks[row, :, i] = np.interp(times, points, values)
    return tracks


def _pulses(pitch_hz: Floats, rng: np.random.Generator) -> Floats:
    """Return the voice (T, N): one pulse a period; the pitch falls by a fifth and trembles."""
    fall = np.linspace(1.1, 0.9, SAMPLES)[:, None]
    tremble = 1 + 0.02 * np.sin(
        2 * np.pi * (5 * np.arange(SAMPLES)[:, None] / SAMPLE_RATE_HZ + rng.random(len(pitch_hz)))
    )
    phase = np.cumsum(pitch_hz * fall * tremble / SAMPLE_RATE_HZ, axis=0) + rng.random(len(pitch_hz))
    pulses: Floats = np.diff(np.floor(phase), axis=0, prepend=np.floor(phase[:1])) * np.sqrt(SAMPLE_RATE_HZ / pitch_hz)
    return pulses


def _resonator(centre_hz: Floats, width_hz: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (a, b, c) of y = a x + b y' + c y'', a resonator of gain 1 at frequency 0."""
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
    b = 2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ)
    c = -(radius**2)
    return 1 - b - c, b, c


def _resonate(voice: Floats, tracks: Floats, breath: Floats, rng: np.random.Generator) -> Floats:
    """Return sounds (N, T): the sources through the resonators, sample after sample for all words at once."""
    count = voice.shape[1]
    formants = np.minimum(tracks[:3], 0.48 * SAMPLE_RATE_HZ)
    widths = np.array([60.0, 90.0, 150.0])[:, None, None] + 0.02 * formants
    row = [_resonator(f, w) for f, w in zip(formants, widths, strict=True)]
    beside = _resonator(np.minimum(tracks[6], 0.48 * SAMPLE_RATE_HZ), tracks[7])
    beside = ((1 - np.exp(-np.pi * tracks[7] / SAMPLE_RATE_HZ)) * 2, *beside[1:])  # of gain 1, about, at its centre
    past = np.zeros((4, 2, count))
    out, tilt = np.empty((SAMPLES, count)), np.zeros(count)
    for t in range(SAMPLES):
        k = t // CONTROL
        noise = rng.standard_normal(count)
        tilt += 0.3 * (voice[t] - tilt)  # the glottis does not shut at once: high frequencies are weaker
        x = tracks[3, k] * tilt + tracks[4, k] * breath * noise
        gap = tracks[5, k] * noise
        for i, (a, b, c) in enumerate((*row, beside)):
            y = a[k] * (gap if i == 3 else x) + b[k] * past[i, 0] + c[k] * past[i, 1]
            past[i, 1], past[i, 0] = past[i, 0], y
            if i < 3:
                x = y
        out[t] = x + y
    return np.ascontiguousarray(np.diff(out, axis=0, prepend=0.0).T)  # what the lips radiate
