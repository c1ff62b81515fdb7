"""The catalog against torch's own counters, and its purity."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aiinfra_widgets.errors import ModelInputError, UnknownNameError
from aiinfra_widgets.quantities import QUANTITIES
from aiinfra_widgets.workloads import catalog, nets
from aiinfra_widgets.workloads.facts import WorkloadFacts

#: Rows of plain layers; the other families have tests of their own (test_language*, test_zoo_*).
PLAIN = [name for name in catalog.names() if catalog.facts(name).family == "layers"]
SIZES = [(name, 256, 4) for name in PLAIN] + [("synthetic", w, d) for w, d in ((64, 1), (96, 2), (128, 16))]
AT = pytest.mark.parametrize(("name", "width", "depth"), SIZES)


def random_batch(facts: WorkloadFacts, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, *facts.sample_shape)
    if facts.task == "classification":
        return x, torch.randint(facts.outputs, (batch,))
    return x, torch.randn(batch, facts.outputs)


def workload(name: str, width: int, depth: int) -> nets.Workload:
    """A workload without its data, which these tests do not need."""
    facts = catalog.facts(name).sized(width, depth)
    nothing = (torch.empty(0), torch.empty(0))
    net = nets.net_of(facts)
    return nets.Workload(facts, net, net.whole(seed=0), nothing, nothing)


@AT
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_flop_equal_what_torch_counts(name, width, depth, batch):
    w = workload(name, width, depth)
    x, y = random_batch(w.facts, batch)
    with FlopCounterMode(display=False) as forward:
        outputs = w.module(x)
    with FlopCounterMode(display=False) as backward:
        w.loss_sum(outputs, y).backward()
    assert forward.get_total_flops() == batch * w.facts.flop_forward_per_sample > 0
    assert backward.get_total_flops() == batch * (w.facts.flop_per_sample - w.facts.flop_forward_per_sample)


@AT
def test_params_and_elements_equal_the_module(name, width, depth):
    w = workload(name, width, depth)
    assert w.facts.params == sum(p.numel() for p in w.module.parameters())
    assert w.facts.gradient_bytes == sum(p.numel() * p.element_size() for p in w.module.parameters())
    x, y = random_batch(w.facts, 5)
    *layers, loss = w.facts.layers()
    assert [layer.name for layer in layers] == [n for n, _ in w.module.named_children()]
    for layer in layers:
        module = w.module.get_submodule(layer.name)
        assert layer.params == sum(p.numel() for p in module.parameters()), layer.name
        assert layer.in_elements == x[0].numel(), layer.name
        x = module(x)
        assert layer.out_elements == x[0].numel(), layer.name
    assert (loss.kind, loss.in_elements) == ("loss", x[0].numel())
    assert w.loss_sum(x, y).shape == ()


@AT
def test_activation_bytes_equal_what_autograd_keeps(name, width, depth):
    w, kept = workload(name, width, depth), {}
    own = {p.untyped_storage().data_ptr() for p in w.module.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim and storage.data_ptr() not in own:  # a scalar belongs to the batch, not to a sample
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, y = random_batch(w.facts, 7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = w.loss_sum(w.module(x), y)
    assert sum(kept.values()) == 7 * w.facts.activation_bytes_per_sample
    assert loss.requires_grad


def test_first_trained_layer_alone_needs_no_input_gradient():
    for name in PLAIN:
        needs = [layer.needs_input_grad for layer in catalog.facts(name).layers()]
        assert needs == [False] + [True] * (len(needs) - 1), name


def test_hand_computed():
    f = catalog.facts("dense-100-64-1")
    assert f.params == 100 * 64 + 64 + 64 + 1
    assert f.flop_forward_per_sample == 2 * 6400 + 2 * 64
    assert f.flop_per_sample == 2 * 2 * 6400 + 3 * 2 * 64
    assert catalog.facts("linear-regression").params == 2
    assert catalog.facts("net-10-5-2").params == 67


def test_the_slider_reaches_64_mb_of_gradient():
    f = catalog.facts("synthetic")
    assert f.sized(4096, 1).gradient_bytes >= 64e6
    assert f.sized(64, 1).gradient_bytes == (64 * 64 + 64) * 4
    assert f.layers(128, 2) == f.sized(128, 2).layers()
    assert f.sized(np.int64(128), np.int64(2)) == f.sized(128, 2)
    assert catalog.facts("net-10-5-2").sized(4096, 9) is catalog.facts("net-10-5-2")


@pytest.mark.parametrize(
    ("width", "depth", "word"),
    [(63, 4, "width"), (4097, 4, "width"), (100, -1, "depth"), (64.5, 4, "width"), (64, 17, "depth")],
)
def test_size_outside_the_range_is_refused(width, depth, word):
    with pytest.raises(ModelInputError, match=word):
        catalog.facts("synthetic").layers(width, depth)


def test_unknown_name_lists_near_matches():
    with pytest.raises(UnknownNameError, match="'digits-cnn'"):
        catalog.facts("digit-cnn")


def test_rows_are_complete():
    for name in PLAIN:
        f = catalog.facts(name)
        assert f.quality in QUANTITIES, name
        assert f.title, name
        assert f.help, name
        assert f.default_batch <= f.train_samples, name
        assert hash(f.layers()) == hash(replace(f).layers()), name


def test_catalog_is_pure():
    code = (
        "import sys; from aiinfra_widgets.workloads import catalog\n"
        "assert [catalog.facts(n).flop_per_sample for n in catalog.names()]\n"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'numpy', 'mpi4py', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
