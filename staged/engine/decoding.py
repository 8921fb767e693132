"""Text, token by token: a fixed number of slots, whoever is in them.

A product of matrices rounds by its shape, and its shape must not tell how many write: so every
step has the same number of rows, some of them in vain. Attention is a call for each row, over
exactly its own keys. What is left is whether kernels treat the rows of one call alike; most do,
some do not (MKL's, where threads part the rows unevenly), and `rows_alike` looks.

Letters: V vocabulary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from staged.engine.cache import CachedSequence, PagedCache
from staged.engine.context import Context, attend_one
from staged.engine.sampling import sample
from staged.engine.summing import places_alike, products_of
from staged.engine.text_sampling import TextSampling
from staged.engine.text_watch import TextWatch
from staged.model.bagel import Bagel, Inputs
from staged.model.layout import Layout, SegmentKind
from staged.model.tokenizer import BagelTokenizer
from staged.model.transformer import Layer

SLOTS = {"cpu": 8, "cuda": 16}
"""Rows of a step by kind of device: what costs hardly more than one row does."""

_WITHOUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN plans anew for every number of keys, which grows with every token."""

_LIKELIEST = 64
"""Of the tokens a block may begin with, so many of the likeliest are looked at."""

_NOT_FINITE = -1
"""Stands for a token where the logits are no numbers."""


@dataclass
class Written:
    """What has been written of a block.

    Attributes:
        ids: Tokens so far, without markers.
        finished: It closed itself.
        finite: The logits were numbers throughout.
        begun: It begins as it must.
    """

    ids: list[int] = field(default_factory=list)
    finished: bool = False
    finite: bool = True
    begun: bool = True


@dataclass(eq=False)  # by identity: a list of them is taken from
class _Row:
    """A block on its way.

    Attributes:
        number: Of its context.
        sampling: How it is written.
        context: What has been read, with room for what is written.
        sequence: The same, layer by layer.
        num_tokens: Of what has been read and written.
        position: Rope position of `feed`.
        feed: The token that goes in next.
        generator: Of its draws.
        written: So far.
        watch: Keeps out what it may not hold, from the token on that completes its beginning.
        num_told: Tokens of it that whoever listens was told of.
    """

    number: int
    sampling: TextSampling
    context: Context
    sequence: CachedSequence
    num_tokens: int
    position: int
    feed: int
    generator: torch.Generator
    written: Written
    watch: TextWatch | None = None
    num_told: int = 0

    @property
    def num_settled(self) -> int:
        """Tokens written that nothing takes back any more."""
        ids = self.written.ids
        return len(ids) if self.watch is None else self.watch.settled(ids)

    def take_back(self, num_kept: int, opening: int) -> None:
        """Let a block go on after fewer tokens; `opening` is fed where none are left."""
        ids = self.written.ids
        gone = len(ids) - num_kept
        del ids[num_kept:]
        self.num_tokens -= gone
        self.position -= gone
        self.feed = ids[-1] if ids else opening


class Decoder:
    """Writes many blocks, as many at a time as there are slots."""

    def __init__(self, model: Bagel, tokenizer: BagelTokenizer) -> None:
        """Decode with a model."""
        self._model, self._special = model, tokenizer.special
        self._tokenizer = tokenizer
        like = model.embed_tokens.weight
        self._device = like.device
        config = model.config
        self._no_images = Inputs(
            like.new_empty(0, config.latent_token_dim),
            torch.empty(0, device=self._device),
            like.new_empty(0, config.vision.patch_dim),
        )
        self._alike: dict[int, bool] = {}

    @property
    def num_slots(self) -> int:
        """Rows of a step; 1 where the kernels would tell one row from another."""
        # Kernels part their work among threads, so with another number they are others.
        threads = torch.get_num_threads()
        slots = SLOTS.get(self._device.type, SLOTS["cuda"])
        if threads not in self._alike:
            self._alike[threads] = self.rows_alike(slots)
        return slots if self._alike[threads] else 1

    def rows_alike(self, slots: int) -> bool:
        """Whether one and the same row comes out with the same bits in every slot."""
        one = TextSampling(max_tokens=1)
        cache = self.cache(slots * (one.max_tokens + 1), page_size=1)
        rows = [self._row(i, Context(cache), one) for i in range(slots)]
        logits = self._logits(rows, slots)
        if not torch.equal(logits, logits[:1].expand_as(logits)):
            return False
        # Own weights may show nothing: of a fresh LoRA half are zeros.
        like, layer = self._model.embed_tokens.weight, self._model.layers[0]
        assert isinstance(layer, Layer)
        linears = (part for part in layer.und.modules() if isinstance(part, nn.Linear))
        return all(places_alike(product, slots, like) for product in products_of(linears))

    def cache(self, num_tokens: int, *, page_size: int | None = None) -> PagedCache:
        """A cache for contexts of this model."""
        like = self._model.embed_tokens.weight
        return PagedCache(
            self._model.config.transformer,
            num_tokens,
            dtype=like.dtype,
            device=like.device,
            page_size=page_size,
        )

    def write(
        self,
        contexts: Sequence[Context],
        sampling: Sequence[TextSampling],
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Written]:
        """Write a block in each context; the contexts stay as they are. See `Engine.write`."""
        with sdpa_kernel(_WITHOUT_CUDNN):
            return self._write(contexts, sampling, on_token)

    def _write(
        self,
        contexts: Sequence[Context],
        sampling: Sequence[TextSampling],
        on_token: Callable[[int, int], None] | None,
    ) -> list[Written]:
        writing: list[_Row] = []
        try:
            return self._advance(writing, contexts, sampling, on_token)
        finally:
            for row in writing:
                row.context.release()

    def _advance(
        self,
        writing: list[_Row],
        contexts: Sequence[Context],
        sampling: Sequence[TextSampling],
        on_token: Callable[[int, int], None] | None,
    ) -> list[Written]:
        slots = self.num_slots
        waiting = deque(enumerate(zip(contexts, sampling, strict=True)))
        done: dict[int, Written] = {}
        while waiting or writing:
            # A slot that falls free is taken at once, so that a long text holds nobody up.
            while waiting and len(writing) < slots:
                number, (context, how) = waiting.popleft()
                writing.append(self._row(number, context, how))
            logits = self._logits(writing, slots)
            # One wait for the device a token, however many rows there are.
            likeliest = torch.where(
                torch.isfinite(logits).all(dim=-1), logits.argmax(dim=-1), _NOT_FINITE
            ).tolist()
            for place, row in enumerate(tuple(writing)):
                goes_on = self._take(row, likeliest[place], logits[place])
                if on_token is not None:
                    _tell(row, on_token, ended=not goes_on)
                if not goes_on:
                    done[row.number] = row.written
                    writing.remove(row)
                    row.context.release()
        return [done[number] for number in range(len(contexts))]

    def _take(self, row: _Row, likeliest: int, logits: Tensor) -> bool:
        """Give a row its next token; return whether it goes on."""
        if likeliest == _NOT_FINITE:
            row.written.finite = False
            return False
        ids, begun = row.written.ids, row.written.begun
        token = self._choose(row, likeliest, logits)
        if token == self._special.text_end:
            row.written.finished = True
            return False
        if len(ids) == row.sampling.max_tokens:
            return False  # cut off
        ids.append(token)
        row.feed = token
        if not begun:
            self._look_begun(row)
        if row.watch is not None and (num_kept := row.watch.keep(ids)) < len(ids):
            row.take_back(num_kept, self._special.text_start)
            self._look_begun(row)
            row.written.finished = row.watch.ended
        return not row.written.finished

    def _look_begun(self, row: _Row) -> None:
        """Note whether a block begins as it must; what comes then is watched."""
        how, written = row.sampling, row.written
        text = self._tokenizer.decode(written.ids)
        written.begun = not how.begins or any(map(text.startswith, how.begins))
        if written.begun and row.watch is None:
            row.watch = self._watch(how, num_free=max(0, len(written.ids) - 1))

    def _watch(self, how: TextSampling, *, num_free: int = 0) -> TextWatch | None:
        if how.without is None:
            return None
        return TextWatch(how.without, self._tokenizer, num_free=num_free)

    def _choose(self, row: _Row, likeliest: int, logits: Tensor) -> int:
        """The row's next token, of its (V,) logits."""
        if not row.written.begun:
            logits = self._beginning(row, logits)
            likeliest = int(logits.argmax())
        drawn = row.sampling.temperature > 0
        token = sample(logits, row.sampling, row.generator) if drawn else likeliest
        while row.watch is not None and row.watch.refuses(row.written.ids, token):
            logits = logits.index_fill(0, torch.tensor([token], device=logits.device), -math.inf)
            token = sample(logits, row.sampling, row.generator) if drawn else int(logits.argmax())
        return token

    def _beginning(self, row: _Row, logits: Tensor) -> Tensor:
        """Leave those of the (V,) logits that go on to what the block may begin with.

        Compared as texts: a vocabulary may cut the same beginning in several ways, and the last
        token of it may hold what comes after.
        """
        ids = row.written.ids
        text = self._tokenizer.decode(ids)
        wanted = [begin for begin in row.sampling.begins if begin.startswith(text)]
        tokens = {self._tokenizer.encode(begin[len(text) :])[0] for begin in wanted}
        tokens |= set(logits.topk(min(_LIKELIEST, len(logits))).indices.tolist())
        fitting = [token for token in sorted(tokens) if self._fits(ids, token, text, wanted)]
        left = torch.full_like(logits, -math.inf)
        left[fitting] = logits[fitting]
        return left

    def _fits(self, ids: list[int], token: int, text: str, wanted: Sequence[str]) -> bool:
        grown = self._tokenizer.decode([*ids, token])
        # What frames a block has no text.
        return len(grown) > len(text) and any(
            begin.startswith(grown) or grown.startswith(begin) for begin in wanted
        )

    def _row(self, number: int, context: Context, sampling: TextSampling) -> _Row:
        num_tokens, context = context.num_tokens, context.fork()
        # Room for the whole block: what fits at its beginning fits to its end.
        context.grow(sampling.max_tokens + 1)
        sequence = context.sequence()
        assert sequence is not None
        return _Row(
            number=number,
            sampling=sampling,
            context=context,
            sequence=sequence,
            num_tokens=num_tokens,
            position=context.position,
            feed=self._special.text_start,
            generator=torch.Generator().manual_seed(sampling.seed),
            written=Written(begun=not sampling.begins),
            watch=None if sampling.begins else self._watch(sampling),
        )

    def _logits(self, rows: Sequence[_Row], slots: int) -> Tensor:
        """Feed each row its token: (rows, V) float32."""
        # What an empty slot computes is thrown away; its rows keep the shapes the same.
        empty = slots - len(rows)
        tokens = [row.feed for row in rows] + [self._special.text_start] * empty
        positions = [row.position for row in rows] + [0] * empty
        layout = _one_token(tokens, positions).to(self._device)
        hidden = self._model(layout, self._no_images, _SlotAttention(rows, slots))
        for row in rows:
            row.num_tokens += 1
            row.position += 1
        return self._model.logits(hidden.und)[: len(rows)].float()


def _tell(row: _Row, on_token: Callable[[int, int], None], *, ended: bool) -> None:
    """Tell of the tokens that stay: of all that there are, once a block has ended."""
    ids = row.written.ids
    for token in ids[row.num_told : len(ids) if ended else row.num_settled]:
        on_token(row.number, token)
        row.num_told += 1


class _SlotAttention:
    """Attention of one token a row to the row's cache; slots without a row get zeros."""

    def __init__(self, rows: Sequence[_Row], slots: int) -> None:
        # Where each row's token goes, the same in every layer.
        self._rows = [(row, row.sequence.slots(row.num_tokens, 1)) for row in rows]
        self._empty = slots - len(rows)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `staged.model.attention.Attend`."""
        attended = []
        for place, (row, slots) in enumerate(self._rows):
            one = slice(place, place + 1)
            # First: a token sees itself.
            row.sequence.write(layer, slots, key[one], value[one])
            attended.append(attend_one(query[one], *row.sequence.read(layer, row.num_tokens + 1)))
        if self._empty:
            attended.append(query.new_zeros(self._empty, *query.shape[1:]))
        return torch.cat(attended)


def _one_token(tokens: Sequence[int], positions: Sequence[int]) -> Layout:
    """A layout of one bare token a row: the inside of a text block being written."""
    count = len(tokens)
    index = torch.arange(count)
    none = index[:0]
    return Layout(
        sample_lens=(1,) * count,
        next_positions=tuple(position + 1 for position in positions),
        position_ids=torch.tensor(positions, dtype=torch.int64),
        segment_ids=torch.zeros_like(index),
        modes=torch.full_like(index, SegmentKind.TEXT),
        token_ids=torch.tensor(tokens, dtype=torch.int64),
        text_index=index,
        vision_index=none,
        latent_index=none,
        vision_grids=(),
        latent_grids=(),
        noised=none.bool(),
        velocity_rows=none,
        ce_index=none,
        labels=none,
        ce_weights=none.float(),
    )
