"""Batched decoding in which a step costs one launch: CUDA graphs over a preallocated cache.

`generate` launches some 1,500 kernels for each token of a 1.7B model; on a slow host that, not the
GPU, sets the speed. Here one step (forward, sampling, bookkeeping) is captured once per window of
cache and then replayed. A replayed step is bound by the number of its kernels, not by their work,
so there are as few as may be: norms are fused, the mask is made once for all layers, the cache has
one position for all. Rows may differ in temperature, so all questions of a turn share one batch;
rows that are done leave it at the end of a window. On a CPU the same loop runs step by step, for
tests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import Module
from torch.nn.functional import rms_norm
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache, StaticLayer

WINDOW = 256  # a step attends to the cache up to the next multiple of this many tokens
FULL_ENOUGH = 0.9  # share of rows still going from which a batch goes on as it is
PREFILL_ROWS = 16  # prompts read at once, those of like length together
ALIGNED = 16  # attention copies a mask whose length is no multiple of this
GREEDY = 1e-4  # FastChat's bound: a lower temperature is greedy
# settings of a generation_config that `sample` does not know, with values that do nothing
UNUSED = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_p": None,
    "typical_p": 1.0,
    "num_beams": 1,
}


class Batch(NamedTuple):
    """Left-padded prompts and their mask [rows, length], a temperature a row, and settings."""

    prompts: torch.Tensor
    mask: torch.Tensor
    temperatures: list[float]
    max_new_tokens: int
    pad: int = 0
    seed: int = 0


@torch.inference_mode()  # type: ignore[untyped-decorator]
def plain(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """New tokens [rows, max_new_tokens] by `generate`, one call for each temperature.

    Pad follows a row's end.
    """
    shape = (len(batch.prompts), batch.max_new_tokens)
    tokens = batch.prompts.new_full(shape, batch.pad)
    for temperature in sorted(set(batch.temperatures)):
        rows = [row for row, own in enumerate(batch.temperatures) if own == temperature]
        settings = {
            "input_ids": batch.prompts[rows],
            "attention_mask": batch.mask[rows],
            "pad_token_id": batch.pad,
            "max_new_tokens": batch.max_new_tokens,
            "do_sample": False,
        }
        if temperature >= GREEDY:
            settings |= {"do_sample": True, "temperature": temperature}
        torch.manual_seed(batch.seed)
        prompts_and_new = model.generate(**settings)
        new = prompts_and_new[:, batch.prompts.shape[1] :]
        tokens[rows, : new.shape[1]] = new
    return tokens


def supports(model: PreTrainedModel) -> bool:
    """Whether `decode` computes what `generate` would.

    It knows full attention by sdpa, and sampling by top-k and top-p only.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return False
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    if set(kinds) != {"full_attention"}:
        return False
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):  # they look at positions on the host
        return False
    for name, does_nothing in UNUSED.items():
        if getattr(model.generation_config, name, None) not in (None, does_nothing):
            return False
    return True


@torch.inference_mode()  # type: ignore[untyped-decorator]
def decode(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """New tokens [rows, at most max_new_tokens], as `plain` gives them where greedy.

    For a model that it `supports`.
    """
    torch.manual_seed(batch.seed)
    length = batch.prompts.shape[1]
    end = length + batch.max_new_tokens
    with fused_norms(model):
        run = Decoding(model, batch)
        for start in range(length, end - 1, WINDOW):
            if bool(run.finished.all()):
                break
            run.compact()
            number = min(WINDOW, end - 1 - start)
            seen = min(start + WINDOW, end)
            run.steps(number, window=seen - run.trimmed)
    return run.result()


@contextmanager
def fused_norms(model: PreTrainedModel) -> Iterator[None]:
    """The model with torch's fused RMS norm in place of its own, which takes eight kernels.

    Only of classes whose own norm gives the same on a random input.
    """
    fused: list[Module] = []
    same: dict[type[Module], bool] = {}
    for module in model.modules():
        kind = type(module)
        if not kind.__name__.endswith("RMSNorm") or "forward" in vars(module):
            continue
        if kind not in same:
            same[kind] = is_plain_rms_norm(module)
        if same[kind]:
            module.forward = partial(fused_norm, module)
            fused.append(module)
    try:
        yield
    finally:
        for module in fused:
            del module.forward


def is_plain_rms_norm(module: Module) -> bool:
    """Whether a module's output is that of `fused_norm`, up to rounding."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or not hasattr(module, "variance_epsilon"):
        return False
    if weight.device.type == "meta":
        return True
    size = len(weight)
    probe = torch.linspace(-3, 3, 4 * size, device=weight.device, dtype=weight.dtype)
    probe = probe.view(4, size)
    tolerance = 4 * torch.finfo(weight.dtype).eps
    plain, fused = module(probe), fused_norm(module, probe)
    return bool(torch.allclose(plain, fused, rtol=tolerance, atol=tolerance))


def fused_norm(module: Module, hidden: torch.Tensor) -> torch.Tensor:
    """RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467) in one kernel."""
    weight: torch.Tensor = module.weight
    epsilon: float = module.variance_epsilon
    return rms_norm(hidden, weight.shape, weight, epsilon)


class WindowedLayer(StaticLayer):  # type: ignore[misc]
    """A preallocated layer of the cache of which attention sees the first `window` positions.

    `position` [1] is where the next token goes, one tensor for all layers.
    """

    window: int

    def __init__(self, rows: int, capacity: int, position: torch.Tensor) -> None:
        super().__init__(capacity)
        self.rows = rows
        self.cumulative_length = position

    def fill(self, rows: torch.Tensor, end: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put some rows' keys and values [rows, heads, length, size] before position `end`."""
        if not self.is_initialized:
            position = self.cumulative_length
            no_keys = keys[:1, :, :0].expand(self.rows, -1, -1, -1)
            no_values = values[:1, :, :0].expand(self.rows, -1, -1, -1)
            self.lazy_initialization(no_keys, no_values)  # it sets a position of its own
            self.cumulative_length = position
        start = end - keys.shape[2]
        self.keys[rows, :, start:end] = keys
        self.values[rows, :, start:end] = values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys.index_copy_(2, self.cumulative_length, key_states)
        self.values.index_copy_(2, self.cumulative_length, value_states)
        return self.keys[:, :, : self.window], self.values[:, :, : self.window]


class Decoding:
    """The state of one batch: tensors that a step changes in place, as CUDA graphs need it.

    `rows` are the places in the batch of the rows still in it, `said` [all rows, max_new_tokens]
    what the others said, `trimmed` the number of leading positions that were cut off the cache.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch) -> None:
        rows, length = batch.prompts.shape
        device = batch.prompts.device
        new = batch.max_new_tokens
        self.model, self.pad, self.device = model, batch.pad, device
        self.trimmed = 0
        self.rows = torch.arange(rows, device=device)
        self.said = torch.full((rows, new), batch.pad, device=device)
        self.length = torch.tensor([length], device=device)
        self.layers = [
            WindowedLayer(rows, length + new, self.length)
            for _ in range(model.config.get_text_config().num_hidden_layers)
        ]
        self.cache = Cache(layers=self.layers)
        self.temperatures = torch.tensor(batch.temperatures, device=device)[:, None]
        ends = model.generation_config.eos_token_id  # none, one or several
        ends = [] if ends is None else ends
        self.ends = torch.tensor(ends, device=device, dtype=torch.long).flatten()
        self.slots = torch.arange(length + new, device=device)
        room = batch.mask.new_ones(rows, new, dtype=torch.bool)
        self.usable = torch.cat([batch.mask.bool(), room], dim=1)
        self.count = torch.zeros(1, dtype=torch.long, device=device)
        self.position = batch.mask.sum(1, keepdim=True)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.tokens = torch.full((rows, new), batch.pad, device=device)
        self.token = batch.prompts[:, -1:].clone()
        self._advance(self._read(batch))

    def _read(self, batch: Batch) -> torch.Tensor:
        """Fill the cache with the prompts. Returns the logits of what follows [rows, vocabulary].

        Prompts are read in parts of like length, since a batch computes all its padding.
        """
        lengths = batch.mask.sum(1)
        parts = []
        order = lengths.argsort()
        for rows in order.split(PREFILL_ROWS):
            longest = int(lengths[rows].max())
            longest = aligned(longest, batch.prompts.shape[1])
            parts.append(self._read_part(batch, rows, longest))
        return torch.cat(parts)[order.argsort()]

    def _read_part(self, batch: Batch, rows: torch.Tensor, longest: int) -> torch.Tensor:
        """The same of the last `longest` positions of some rows."""
        prompts = batch.prompts[rows, -longest:]
        mask = batch.mask[rows, -longest:].bool()
        causal = torch.ones(longest, longest, dtype=torch.bool, device=self.device).tril()
        # a padding position sees itself, so that no row of the mask is empty
        itself = torch.eye(longest, dtype=torch.bool, device=self.device)
        seen = (mask[:, None, :] & causal) | itself
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        read = DynamicCache()
        logits = self._forward(prompts, positions, seen[:, None], read)
        for layer, part in zip(self.layers, read.layers, strict=True):
            layer.fill(rows, batch.prompts.shape[1], part.keys, part.values)
        return logits

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """Logits of the last token [rows, vocabulary], fp32; `mask` [rows, 1, tokens, cache]."""
        inputs = {"input_ids": tokens, "position_ids": positions, "attention_mask": mask}
        output = self.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].float()

    def _step(self, window: int) -> None:
        """One token more of every row, which sees `window` positions of the cache."""
        for layer in self.layers:
            layer.window = window
        seen = self.usable[:, :window] & (self.slots[:window] <= self.length)
        # in attention's own type: every layer would convert truth values for itself
        mask = torch.zeros_like(seen, dtype=self.layers[0].keys.dtype)
        mask.masked_fill_(~seen, -torch.inf)
        logits = self._forward(self.token, self.position, mask[:, None, None], self.cache)
        self.length += 1
        self.position += 1
        self._advance(logits)

    def _advance(self, logits: torch.Tensor) -> None:
        """Choose each row's next token by its logits, pad in those that are done."""
        choice = sample(logits, self.temperatures, self.model.generation_config)
        choice = choice.masked_fill(self.finished, self.pad)
        self.finished |= torch.isin(choice, self.ends)
        self.tokens.index_copy_(1, self.count, choice[:, None])
        self.token.copy_(choice[:, None])
        self.count += 1

    def compact(self) -> None:
        """Leave out the rows that are done, if they are many. Only between windows.

        And the leading positions that are padding in all rows that stay.
        """
        going = (~self.finished).nonzero()[:, 0]
        if len(going) > FULL_ENOUGH * len(self.rows):
            return
        self.said[self.rows] = self.tokens
        used = self.usable[going].any(0)
        padding = int(used.long().argmax())
        cut = padding - padding % ALIGNED
        for layer in self.layers:
            layer.keys = layer.keys[going, :, cut:]
            layer.values = layer.values[going, :, cut:]
        for name in ("rows", "tokens", "temperatures", "usable", "position", "finished", "token"):
            setattr(self, name, getattr(self, name)[going])
        self.usable = self.usable[:, cut:]
        self.length -= cut
        self.trimmed += cut

    def result(self) -> torch.Tensor:
        """The new tokens of all rows, up to the longest; pad after a row's end."""
        self.said[self.rows] = self.tokens
        return self.said[:, : int(self.count)]

    def steps(self, number: int, window: int) -> None:
        """`number` steps within a window: the first as it is, the rest replayed from a graph.

        On a CPU there is no graph.
        """
        self._step(window)
        if number > 1 and self.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # records a step and runs nothing
                self._step(window)
        for done in range(number - 1):
            if done % 16 == 0 and bool(self.finished.all()):
                break
            if self.device.type == "cuda":
                graph.replay()
            else:
                self._step(window)


def aligned(length: int, longest: int) -> int:
    """The length rounded up so that attention need not copy its mask, at most `longest`."""
    return min(-(-length // ALIGNED) * ALIGNED, longest)


def sample(
    logits: torch.Tensor, temperatures: torch.Tensor, config: GenerationConfig
) -> torch.Tensor:
    """One token [rows] from logits [rows, vocabulary].

    The best where greedy, else by temperature, top-k, then top-p. Sampling is the Gumbel maximum,
    which needs no check on the host and so can be captured; generate's own defaults (top_k 50,
    top_p 1) hold where the config sets none.
    """
    sampled = temperatures >= GREEDY
    vocabulary = logits.shape[-1]
    top_k = 50 if config.top_k is None else config.top_k
    top_p = 1.0 if config.top_p is None else config.top_p
    number = min(top_k, vocabulary) or vocabulary  # top_k 0: all
    scores, tokens = logits.topk(number)
    scores = scores / temperatures.masked_fill(~sampled, 1.0)
    probability = scores.softmax(-1)
    before = probability.cumsum(-1) - probability
    too_rare = (before > 0) & (before >= top_p)
    scores = scores.masked_fill(too_rare, -torch.inf)
    noise = -torch.empty_like(scores).exponential_().log()
    highest = (scores + noise).argmax(-1, keepdim=True)
    drawn = tokens.gather(-1, highest)
    best = logits.argmax(-1, keepdim=True)
    return torch.where(sampled, drawn, best)[:, 0]
