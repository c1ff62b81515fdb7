"""Workloads as they train: bit-same start, additive gradients, the stated quality."""

import subprocess
import sys
import time

import pytest
import torch

from aiinfra_widgets.workloads import catalog, nets

#: Rows of plain layers; the other families have tests of their own (test_language*, test_zoo_*).
PLAIN = [name for name in catalog.names() if catalog.facts(name).family == "layers"]
NAMES = pytest.mark.parametrize("name", PLAIN)
MOMENTUM = 0.9


def small(name, cache, seed=0):
    return nets.load(name, seed=seed, cache=cache, width=64, depth=3)


def bits(w):
    return [p.detach() for p in w.module.parameters()] + [*w.train, *w.test]


@NAMES
def test_shapes_and_types(name, cache):
    w = small(name, cache)
    f = w.facts
    for (x, y), n in ((w.train, f.train_samples), (w.test, f.test_samples)):
        assert (tuple(x.shape), x.dtype, x.is_contiguous()) == ((n, *f.sample_shape), torch.float32, True)
        want = ((n,), torch.int64) if f.task == "classification" else ((n, f.outputs), torch.float32)
        assert (tuple(y.shape), y.dtype) == want
        assert torch.isfinite(x).all()
    assert {p.dtype for p in w.module.parameters()} == {torch.float32}
    if f.task == "classification":
        assert sorted(w.train[1].unique().tolist()) == list(range(f.outputs))


@NAMES
def test_same_seed_gives_the_same_bits(name, cache):
    torch.manual_seed(1)
    first = small(name, cache, seed=5)
    torch.manual_seed(2)
    torch.set_num_threads(3)
    state = torch.get_rng_state()
    again = small(name, cache, seed=5)
    assert torch.equal(state, torch.get_rng_state()), "the global generator was touched"
    assert all(torch.equal(a, b) for a, b in zip(bits(first), bits(again), strict=True))
    other = small(name, cache, seed=6)
    assert not torch.equal(next(first.module.parameters()), next(other.module.parameters()))


def test_another_process_with_other_threads_has_the_same_bits(cache):
    code = (
        "import sys, hashlib; from pathlib import Path; from aiinfra_widgets.workloads import catalog, nets\n"
        "h = hashlib.sha256()\n"
        "for n in catalog.names():\n"
        "    if catalog.facts(n).family != 'layers': continue\n"
        "    w = nets.load(n, seed=3, cache=Path(sys.argv[1]), width=64, depth=3)\n"
        "    for t in (*w.module.parameters(), *w.train, *w.test): h.update(t.detach().numpy().tobytes())\n"
        "print(h.hexdigest())"
    )
    digests = set()
    for threads in ("1", "2"):
        # A cache of its own each, so that what is generated is compared and not the same file read twice.
        env = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code, str(cache / f"threads{threads}")],
            capture_output=True,
            text=True,
            env=env,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


@NAMES
def test_shards_add_up_to_the_whole_batch(name, cache):
    w = small(name, cache)
    x, y = (part[:97] for part in w.train)
    params = list(w.module.parameters())
    whole = torch.autograd.grad(w.loss_sum(w.module(x), y) / 97, params)
    summed = [torch.zeros_like(p) for p in params]
    for x_rank, y_rank in zip(x.split([50, 1, 46]), y.split([50, 1, 46]), strict=True):
        part = torch.autograd.grad(w.loss_sum(w.module(x_rank), y_rank) / 97, params)
        summed = [s + g for s, g in zip(summed, part, strict=True)]
    for got, want in zip(summed, whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert max(g.abs().max() for g in whole) > 1e-3


@NAMES
def test_evaluate_equals_the_whole_test_set_at_once(name, cache):
    w = small(name, cache)
    x, y = w.test
    w.module.train()
    got = w.evaluate(w.module)
    assert w.module.training
    with torch.no_grad():
        outputs = w.module(x)
    if w.facts.task == "classification":
        want = {
            "held_out_loss": float(torch.nn.functional.cross_entropy(outputs, y)),
            "accuracy_frac": float((outputs.argmax(1) == y).float().mean()),
        }
    else:
        want = {"held_out_loss": float(((outputs - y) ** 2).mean())}
    assert got == pytest.approx(want, rel=1e-4)
    assert all(p.grad is None for p in w.module.parameters())


def train(w, *, steps, momentum, seed):
    optimiser = torch.optim.SGD(w.module.parameters(), lr=w.facts.default_lr, momentum=momentum)
    generator = torch.Generator().manual_seed(seed)
    x, y = w.train
    for _ in range(steps):
        index = torch.randint(len(x), (w.facts.default_batch,), generator=generator)
        optimiser.zero_grad()
        (w.loss_sum(w.module(x[index]), y[index]) / len(index)).backward()
        optimiser.step()
    return w.evaluate(w.module)


@NAMES
@pytest.mark.parametrize("seed", [0, 1])
def test_trains_to_the_stated_quality(name, seed, cache):
    w = nets.load(name, seed=seed, cache=cache)
    f = w.facts
    before, after = (
        w.evaluate(w.module)[f.quality],
        train(w, steps=f.goal_steps, momentum=MOMENTUM, seed=seed)[f.quality],
    )
    if f.quality == "accuracy_frac":
        assert before < f.goal - 0.1
        assert after >= f.goal
    else:
        assert before > 2 * f.goal
        assert after <= f.goal
        assert after > 0.9 * (f.best_held_out_loss or 0.0), (
            "better than the noise allows: test data leaked, or the bound is wrong"
        )


def test_plain_sgd_fits_the_line(cache):
    w = nets.load("linear-regression", seed=4, cache=cache)
    loss = train(w, steps=500, momentum=0.0, seed=0)["held_out_loss"]
    assert loss == pytest.approx(w.facts.best_held_out_loss, rel=0.03)
    slope = next(w.module.parameters()).item()
    assert slope**2 == pytest.approx(1 / 1.01, rel=0.01)  # standardised: slope^2 is the explained share of the variance


def test_initial_signal_neither_dies_nor_explodes_with_depth(cache):
    w = nets.load("synthetic", seed=0, cache=cache, width=256, depth=16)
    scale = w.module(w.train[0]).std().item()
    assert 0.2 < scale < 5


def test_a_warm_cache_loads_fast_and_without_sklearn(cache):
    code = (
        "import sys, time; from pathlib import Path; from aiinfra_widgets.workloads import catalog, nets\n"
        "t = time.perf_counter()\n"
        "for n in catalog.names():\n"
        "    if catalog.facts(n).family == 'layers': nets.load(n, seed=0, cache=Path(sys.argv[1]))\n"
        "print('sklearn' in sys.modules, time.perf_counter() - t)"
    )
    for name in PLAIN:
        nets.load(name, seed=0, cache=cache)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(cache)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[0] == "False", done.stderr
    print(f"all six loaded in {float(done.stdout.split()[1]):.2f} s of {time.monotonic() - started:.2f} s")
