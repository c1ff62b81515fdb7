"""What is known of the language models before one is built: their sizes, their exact arithmetic, and the texts. Pure.

Decoders with norms in front (Radford et al. 2019), learned positions and a GELU layer of 4 D. The head is not tied to the
embedding, so that no two stages of a pipeline share a weight.

# T tokens of a sequence, D width, H heads, V vocabulary, r rank of the adapters
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import ModelInputError
from .facts import FLOAT_BYTES, INDEX_BYTES, Layer, WorkloadFacts, linear

#: The printable ASCII characters and the line feed.
CHARACTERS = 96
#: What the large presets count as their vocabulary: half of GPT-2's, because two tables of this size (embedding and head) hold
#: what its one table does. The texts use the first CHARACTERS of it; for time and memory all of it counts.
LARGE_VOCAB = 25_152
#: Part of a text, from its beginning, that is trained on.
TRAIN_FRAC = 0.9
#: Characters that an evaluation reads at most: the standard error of their mean loss is about 0.02 nats.
HELD_OUT_TOKENS = 16_384
#: Rank of the adapters.
RANK = 8


@dataclass(frozen=True, slots=True)
class Text:
    """A shipped text.

    Attributes:
        name: Of the file, `data/texts/NAME.txt.gz`.
        characters: In all.
    """

    name: str
    characters: int

    @property
    def train_characters(self) -> int:
        """Those that are trained on; the others, behind them, are held out."""
        return int(self.characters * TRAIN_FRAC)


SHAKESPEARE = Text("shakespeare", 1_115_394)
ALICE = Text("alice", 144_396)
_TEXTS = {"gpt-char-lora": ALICE}
#: Which workload's trained parameters a workload starts from.
BASES = {"gpt-char-lora": "gpt-char-1m"}


def text_of(name: str) -> Text:
    """Return the text that a workload of this family is trained on."""
    return _TEXTS.get(name, SHAKESPEARE)


def head_size(width: int) -> int:
    """Return the numbers per head of a model of any width: 16, from width 256 on 64.

    Raises:
        ModelInputError: The width is no multiple of it.
    """
    size = 16 if width < 256 else 64
    if width % size:
        near = max(size, round(width / size) * size)
        raise ModelInputError(f"width is {width}; a language model of this width has heads of {size}; try {near}")
    return size


def decoder(width: int, depth: int, heads: int, vocab: int, tokens: int, rank: int = 0) -> tuple[Layer, ...]:
    """Return the layers of a decoder, the loss last.

    Attention counts its two products in full: the half that the causal mask throws away is computed by plain kernels. Fused
    kernels compute the scores once more in backward, which no layer counts. `kept_bytes` are those of fused attention.

    Args:
        width, depth, heads, vocab, tokens: D, blocks, H, V, T.
        rank: r of the adapters beside every product of a block; everything else is then fixed. 0 trains everything.
    """
    fixed = rank > 0
    layers = [
        _table("embed.tokens", vocab, width, tokens, 0 if fixed else INDEX_BYTES * tokens),
        _table("embed.places", tokens, width, tokens, 0),
    ]
    for i in range(depth):
        layers += _block(f"block{i}", width, heads, tokens, rank, first=i == 0)
    layers.append(_norm("head.norm", width, tokens, kept=True))
    head = linear("head.logits", width, vocab, rows=tokens)
    layers.append(replace(head, params=width * vocab, kept_bytes=0 if fixed else tokens * width * FLOAT_BYTES))
    if fixed:
        layers = [layer if ".lora_" in layer.name else _fix(layer) for layer in layers]
    dims, kept = {"outputs": vocab, "rows": tokens}, tokens * (vocab * FLOAT_BYTES + INDEX_BYTES)
    return (*layers, Layer("loss", "loss", 0, 0, tokens * vocab, 1, dims, True, kept_bytes=kept))


def _block(name: str, width: int, heads: int, tokens: int, rank: int, *, first: bool) -> Iterator[Layer]:
    """Yield one block; under adapters, nothing before those of the first block needs a gradient."""
    numbers, dead = tokens * width, first and rank > 0
    sizes = {"heads": heads, "width": width, "tokens": tokens}
    kept = (4 * numbers + heads * tokens) * FLOAT_BYTES  # queries, keys, values, what was found, and its normalisers
    yield _norm(f"{name}.norm1", width, tokens, kept=not dead)
    yield from _product(f"{name}.qkv", width, 3 * width, tokens, rank, dead=dead)
    yield Layer(
        f"{name}.attention", "attention", 4 * tokens * numbers, 0, 3 * numbers, numbers, sizes, True, kept_bytes=kept
    )
    yield from _product(f"{name}.out", width, width, tokens, rank, shared=True)
    yield Layer(f"{name}.add1", "add", 0, 0, 2 * numbers, numbers, {}, True)
    yield _norm(f"{name}.norm2", width, tokens, kept=True)
    yield from _product(f"{name}.up", width, 4 * width, tokens, rank)
    gelu = Layer(f"{name}.gelu", "gelu", 0, 0, 4 * numbers, 4 * numbers, {}, True)
    yield replace(gelu, kept_bytes=4 * numbers * FLOAT_BYTES)
    yield from _product(f"{name}.down", 4 * width, width, tokens, rank)
    yield Layer(f"{name}.add2", "add", 0, 0, 2 * numbers, numbers, {}, True)


def _product(
    name: str, inputs: int, outputs: int, tokens: int, rank: int, *, dead: bool = False, shared: bool = False
) -> Iterator[Layer]:
    """Yield a dense layer of a block and its adapters.

    Args:
        name, inputs, outputs, tokens, rank: As the words say.
        dead: Nothing before it needs a gradient.
        shared: The layer before it keeps the same numbers already.
    """
    kept = 0 if shared else tokens * inputs * FLOAT_BYTES
    base = linear(name, inputs, outputs, rows=tokens, first=dead)
    if not rank:
        yield replace(base, kept_bytes=kept)
        return
    yield base
    down = linear(f"{name}.lora_a", inputs, rank, rows=tokens, first=dead)
    up = linear(f"{name}.lora_b", rank, outputs, rows=tokens)
    yield replace(down, params=inputs * rank, kept_bytes=kept)
    yield replace(up, params=rank * outputs, kept_bytes=tokens * rank * FLOAT_BYTES)


def _fix(layer: Layer) -> Layer:
    """Return a layer whose parameters are not trained."""
    return replace(layer, params=0, fixed_params=layer.params, frozen=layer.params > 0)


def _table(name: str, rows: int, width: int, tokens: int, kept_bytes: int) -> Layer:
    dims = {"vocab": rows, "width": width, "tokens": tokens}
    return Layer(name, "embedding", 0, rows * width, tokens, tokens * width, dims, False, kept_bytes=kept_bytes)


def _norm(name: str, width: int, tokens: int, *, kept: bool) -> Layer:
    """Return a norm over each token, which keeps its input, the mean and the spread."""
    numbers = tokens * width
    kept_bytes = (numbers + 2 * tokens) * FLOAT_BYTES if kept else 0
    return Layer(name, "norm", 0, 2 * width, numbers, numbers, {}, True, kept_bytes=kept_bytes)


def _row(
    name: str,
    title: str,
    explain: str,
    size: tuple[int, int, int, int, int],
    trains: tuple[int, float, float, int],
    rank: int = 0,
    sizable: bool = False,
) -> WorkloadFacts:
    """Return one row.

    Args:
        name, title, explain, rank, sizable: As in the facts.
        size: Width, depth, heads (0: heads of `head_size`), vocabulary, tokens of a sequence.
        trains: Global batch, learning rate, and the held-out loss in nats per character after so many steps.
    """
    width, depth, heads, vocab, tokens = size
    batch, lr, goal, goal_steps = trains
    text = text_of(name)
    held_out = text.characters - text.train_characters
    return WorkloadFacts(
        name=name,
        title=title,
        help=explain,
        task="language",
        quality="held_out_loss",
        goal=goal,
        goal_steps=goal_steps,
        train_samples=(text.train_characters - 1) // tokens,
        test_samples=min(HELD_OUT_TOKENS, held_out - 1) // tokens,
        default_batch=batch,
        default_lr=lr,
        sample_shape_of=lambda width, depth: (tokens,),
        layers_of=lambda width, depth: decoder(width, depth, heads or width // head_size(width), vocab, tokens, rank),
        width=width,
        depth=depth,
        sizable=sizable,
        family="language",
        optimizer="adamw",
        width_range=(16, 4096),
        depth_range=(1, 64),
    )


#: Reached on one core: gpt-char-1m 2.20 after 300 steps and 2.12 after 400; adapters 2.03 on a base of 300 steps, which itself has
#: 2.50 on their text. The goals of the larger presets were not tried; they wait for a GPU.
ROWS: tuple[WorkloadFacts, ...] = (
    _row(
        "gpt-char",
        "GPT of any size, by character",
        "Reads Shakespeare character by character; as wide and as deep as you like, 64 characters at a time.",
        (64, 2, 0, CHARACTERS, 64),
        (32, 6e-3, 2.2, 300),
        sizable=True,
    ),
    _row(
        "gpt-char-1m",
        "GPT, 1 M parameters, by character",
        "Four blocks that read Shakespeare, 128 characters at a time: trains on a laptop in minutes.",
        (144, 4, 8, CHARACTERS, 128),
        (16, 3e-3, 2.2, 400),
    ),
    _row(
        "gpt-char-10m",
        "GPT, 10 M parameters, by character",
        "Six blocks of width 384, 256 characters at a time: minutes on a GPU, an hour on a laptop.",
        (384, 6, 6, CHARACTERS, 256),
        (16, 1e-3, 2.0, 500),
    ),
    _row(
        "gpt-124m",
        "GPT, 124 M parameters",
        "The shape of GPT-2 small, its vocabulary split over embedding and head; needs a GPU.",
        (768, 12, 12, LARGE_VOCAB, 1024),
        (8, 3e-4, 2.5, 500),
    ),
    _row(
        "gpt-350m",
        "GPT, 350 M parameters",
        "The shape of GPT-2 medium, its vocabulary split over embedding and head; needs a GPU.",
        (1024, 24, 16, LARGE_VOCAB, 1024),
        (8, 2e-4, 2.5, 500),
    ),
    _row(
        "gpt-1.3b",
        "GPT, 1.3 B parameters",
        "24 blocks of width 2048, 2 048 tokens at a time; needs a GPU of 40 GB, or several.",
        (2048, 24, 16, LARGE_VOCAB, 2048),
        (8, 1e-4, 2.5, 500),
    ),
    _row(
        "gpt-char-lora",
        "Adapters on the GPT of 1 M parameters",
        f"Only products of rank {RANK} beside each matrix are trained (LoRA), on Carroll's Alice, from a base that read Shakespeare.",
        (144, 4, 8, CHARACTERS, 128),
        (16, 5e-3, 2.1, 200),
        rank=RANK,
    ),
)
