"""The zoo's data: the same bits for everyone, held-out parts that are really held out, and the difficulty that was meant."""

import hashlib
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from aiinfra_widgets.workloads import clicks_data, nets, physics_data, speech_data
from aiinfra_widgets.workloads.clicks_facts import COUNTS, TABLES
from aiinfra_widgets.workloads.physics_facts import DIFFUSIVITY
from aiinfra_widgets.workloads.speech import BINS, Spectrum, fourier, mel_bands
from aiinfra_widgets.workloads.speech_facts import HOP, SAMPLE_RATE_HZ, WINDOW, WORDS

FAMILIES = ("image", "speech", "clicks", "physics")
ROWS = {name: import_module(f"aiinfra_widgets.workloads.{name}_facts").ROWS[0] for name in FAMILIES}
FAMILY = pytest.mark.parametrize("family", FAMILIES)
DIGEST = (
    "import sys, hashlib, importlib; from pathlib import Path; h = hashlib.sha256()\n"
    "facts = importlib.import_module(f'aiinfra_widgets.workloads.{sys.argv[1]}_facts').ROWS[0]\n"
    "data = importlib.import_module(f'aiinfra_widgets.workloads.{sys.argv[1]}_data')\n"
    "for part in data.load(facts, int(sys.argv[3]), Path(sys.argv[2])):\n"
    "    for a in part: h.update(a.tobytes())\n"
    "print(h.hexdigest(), 'torch' in sys.modules)"
)


def load(family, cache, seed=0):
    return import_module(f"aiinfra_widgets.workloads.{family}_data").load(ROWS[family], seed, cache)


@FAMILY
def test_shapes_and_types(family, cache):
    facts = ROWS[family]
    for (x, y), n in zip(load(family, cache), (facts.train_samples, facts.test_samples), strict=True):
        assert (x.shape, x.dtype) == ((n, *facts.sample_shape), np.int64 if family == "clicks" else np.float32)
        assert x.flags.c_contiguous
        want = ((n,), np.int64) if facts.task == "classification" else ((n, 1), np.float32)
        assert (y.shape, y.dtype) == want
        if facts.task == "classification":
            assert sorted(set(y.tolist())) == list(range(facts.outputs))


@FAMILY
def test_another_process_with_other_threads_and_seed_makes_the_same_bits_without_torch(family, cache, tmp_path):
    digest = hashlib.sha256()
    for part in load(family, cache):
        for array in part:
            digest.update(array.tobytes())
    env = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "PATH": ""}
    command = [sys.executable, "-c", DIGEST, family, str(tmp_path), "7"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.stdout.split() == [digest.hexdigest(), "False"], done.stderr


@pytest.mark.parametrize("family", ["image", "speech", "physics"])
def test_no_sample_is_in_both_parts(family, cache):
    """Not asked of clicks: two people may well have the same few counts and popular ids."""
    (x, _), (held_out, _) = load(family, cache)
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in held_out}


# --- clicks ---------------------------------------------------------------------------------------------------------------


def test_the_teachers_area_is_the_declared_one_and_nothing_it_knows_is_lost(cache):
    (_, _), (x, y) = load("clicks", cache)
    drawn, logits = clicks_data.draw(len(x), 1)
    assert np.array_equal(drawn, x)
    area = nets.auc_frac(torch.from_numpy(logits), torch.from_numpy(y[:, 0]))
    assert area == pytest.approx(ROWS["clicks"].best_auc_frac, abs=5e-6)
    # A click is drawn with the teacher's probability: in every tenth of the samples the shares agree.
    chance = 1 / (1 + np.exp(-logits))
    for tenth in np.array_split(np.argsort(chance), 10):
        spread = np.sqrt((chance[tenth] * (1 - chance[tenth])).sum()) / len(tenth)
        assert abs(y[tenth].mean() - chance[tenth].mean()) < 4 * spread
    assert 0.1 < y.mean() < 0.4


def test_what_the_counts_or_the_ids_alone_tell_is_not_enough(cache):
    """So a net needs both its dense layers and its tables."""
    (x, _), (held_out, y) = load("clicks", cache)
    clicked = load("clicks", cache)[0][1][:, 0]
    target = torch.from_numpy(y[:, 0])
    log = np.log1p(np.concatenate([x, held_out])[:, :COUNTS])
    weights = np.linalg.lstsq(np.c_[log[: len(x)], np.ones(len(x))], clicked, rcond=None)[0]
    by_counts = nets.auc_frac(torch.from_numpy(log[len(x) :] @ weights[:-1]), target)
    by_ids = np.zeros(len(held_out))
    for j, size in enumerate(TABLES):
        seen = np.bincount(x[:, COUNTS + j], minlength=size)
        clicks = np.bincount(x[:, COUNTS + j], weights=clicked, minlength=size)
        by_ids += np.log((clicks + 1) / (seen - clicks + 4))[held_out[:, COUNTS + j]]
    by_ids = nets.auc_frac(torch.from_numpy(by_ids), target)
    assert 0.6 < by_counts < ROWS["clicks"].goal - 0.05
    assert 0.6 < by_ids < ROWS["clicks"].goal - 0.05


def test_ids_are_in_their_tables_and_of_zipf_popularity(cache):
    (x, _), _ = load("clicks", cache)
    assert x.min() == 0
    assert x.max() < 2**24
    for j, size in enumerate(TABLES):
        ids = x[:, COUNTS + j]
        assert ids.max() < size
        seen = np.bincount(ids, minlength=10)[:10]
        assert seen[0] / seen[7] == pytest.approx(8**clicks_data.ZIPF, rel=0.1)


# --- speech ---------------------------------------------------------------------------------------------------------------


def test_the_front_end_is_a_spectrogram():
    """A tone's power is found in its band, and in the Fourier bin where numpy finds it."""
    time_s = np.arange(WINDOW + 31 * HOP) / SAMPLE_RATE_HZ
    for hz in (300.0, 1000.0, 2500.0):
        tone = np.sin(2 * np.pi * hz * time_s)
        picture = Spectrum()(torch.from_numpy(tone.astype(np.float32))[None])[0, 0]
        bands = mel_bands() @ (np.abs(np.arange(BINS) * SAMPLE_RATE_HZ / WINDOW - hz) < SAMPLE_RATE_HZ / WINDOW)
        assert (picture.argmax(1) == picture.argmax(1)[0]).all()
        assert bands[picture[0].argmax()] > 0.5 * bands.max()
        frame = tone[:WINDOW]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
        waves = fourier() @ frame
        want = np.abs(np.fft.rfft(frame * hann))[:BINS] * 2 / WINDOW
        np.testing.assert_allclose(np.hypot(waves[:BINS], waves[BINS:]), want, atol=1e-12)


def test_every_mel_band_hears_something_and_every_frequency_is_heard_once():
    bands = mel_bands()
    assert (bands.max(1) > 0.5).all()
    np.testing.assert_allclose(
        bands.sum(0)[2:120], 1.0
    )  # up to the middle of the last band; the first is half below 0 Hz
    assert bands.min() == 0


def test_a_resonator_resonates():
    """The peak of its response lies at its centre, half of the power at half of its width beside it."""
    centre, width = 1200.0, 80.0
    a, b, c = speech_data._resonator(np.float64(centre), np.float64(width))
    hz = np.arange(1.0, SAMPLE_RATE_HZ / 2)
    z = np.exp(-2j * np.pi * hz / SAMPLE_RATE_HZ)
    gain = np.abs(a / (1 - b * z - c * z**2))
    assert hz[gain.argmax()] == pytest.approx(centre, abs=5)
    half = hz[gain**2 > gain.max() ** 2 / 2]
    assert half[-1] - half[0] == pytest.approx(width, rel=0.05)
    assert abs(a / (1 - b - c)) == pytest.approx(1.0)


def test_voices_differ_and_words_can_be_told_apart_but_not_by_a_template(cache):
    (x, words), (held_out, said) = load("speech", cache)
    assert (np.abs(x).max(), np.abs(held_out).max()) <= (1.0, 1.0)
    spectrum = Spectrum()
    pictures, others = (spectrum(torch.from_numpy(part)).flatten(1) for part in (x, held_out))
    assert abs(float(pictures.mean())) < 0.3
    assert 0.7 < float(pictures.std()) < 1.3
    templates = torch.stack([pictures[torch.from_numpy(words == k)].mean(0) for k in range(len(WORDS))])
    by_template = (torch.cdist(others, templates).argmin(1).numpy() == said).mean()
    by_neighbour = (words[torch.cdist(others, pictures).argmin(1).numpy()] == said).mean()
    assert 0.3 < by_template < 0.7
    assert 0.7 < by_neighbour < ROWS["speech"].goal


# --- physics --------------------------------------------------------------------------------------------------------------


def test_the_exact_solution_solves_the_equation_and_is_what_points_at_the_edges_know(cache):
    x, t, h = np.linspace(-0.9, 0.9, 50), np.linspace(0.05, 0.95, 50), 1e-4
    u_t = (physics_data.exact(x, t + h) - physics_data.exact(x, t - h)) / (2 * h)
    u_xx = (physics_data.exact(x + h, t) - 2 * physics_data.exact(x, t) + physics_data.exact(x - h, t)) / h**2
    np.testing.assert_allclose(u_t, DIFFUSIVITY * u_xx, atol=1e-5)
    assert np.abs(u_t).max() > 0.5
    (points, answers), (held_out, u) = load("physics", cache)
    inside = points[:, 2] == 1
    assert inside.mean() == 0.75
    assert not answers[inside].any()
    edge = points[~inside]
    assert ((edge[:, 1] == 0) | (np.abs(edge[:, 0]) == 1)).all()
    assert not (held_out[:, 2]).any()
    np.testing.assert_allclose(answers[~inside, 0], physics_data.exact(edge[:, 0], edge[:, 1]), atol=1e-6)
    np.testing.assert_allclose(u[:, 0], physics_data.exact(held_out[:, 0], held_out[:, 1]), atol=1e-6)
    assert u.var() > 100 * ROWS["physics"].goal


def test_the_residual_is_the_one_that_autograd_finds():
    net = nets.net_of(ROWS["physics"].sized(16, 2)).whole(1).double()
    x, t = (torch.rand(9, dtype=torch.double, requires_grad=True) for _ in range(2))
    u = net(torch.stack([x, t, torch.zeros(9)], 1))
    by_x, by_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
    (twice,) = torch.autograd.grad(by_x.sum(), x)
    answer = net(torch.stack([x, t, torch.ones(9)], 1))[:, 0]
    weight = import_module("aiinfra_widgets.workloads.physics_facts").RESIDUAL_WEIGHT
    torch.testing.assert_close(answer, weight * (by_t - DIFFUSIVITY * twice), rtol=1e-12, atol=1e-12)
