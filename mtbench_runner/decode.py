"""Batched decoding in which a step costs one launch: CUDA graphs over a preallocated cache.

`generate` launches some 1,500 kernels for each token of a 1.7B model; on a slow host that, not the
GPU, sets the speed. Here one step (forward, sampling, bookkeeping) is captured once per window of
cache and then replayed. Rows may differ in temperature, so all questions of a turn share one batch;
rows that are done leave it at the end of a window. On a CPU the same loop runs step by step, for
tests.
"""

from typing import NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import Cache, StaticLayer

WINDOW = 256  # a step attends to the cache up to the next multiple of this many tokens
FULL_ENOUGH = 0.9  # share of rows still going from which a batch goes on as it is
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


@torch.inference_mode()
def plain(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """New tokens [rows, max_new_tokens] by `generate`, one call for each temperature.

    Pad follows a row's end.
    """
    tokens = batch.prompts.new_full((len(batch.prompts), batch.max_new_tokens), batch.pad)
    for temperature in sorted(set(batch.temperatures)):
        rows = [i for i, t in enumerate(batch.temperatures) if t == temperature]
        sampled = temperature >= GREEDY
        sampling = (
            {"do_sample": True, "temperature": temperature} if sampled else {"do_sample": False}
        )
        torch.manual_seed(batch.seed)
        ids = {
            "input_ids": batch.prompts[rows],
            "attention_mask": batch.mask[rows],
            "pad_token_id": batch.pad,
        }
        new = model.generate(**ids, **sampling, max_new_tokens=batch.max_new_tokens)[
            :, batch.prompts.shape[1] :
        ]
        tokens[rows, : new.shape[1]] = new
    return tokens


def supports(model: PreTrainedModel) -> bool:
    """Whether `decode` computes what `generate` would.

    It knows full attention by sdpa, and sampling by top-k and top-p only.
    """
    config, sampling = model.config.get_text_config(), model.generation_config
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    windowed = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    known = all(getattr(sampling, name, None) in (None, value) for name, value in UNUSED.items())
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    captured = rope not in ("dynamic", "longrope")  # these look at the positions on the host
    return bool(
        full and not windowed and known and captured and config._attn_implementation == "sdpa"
    )


@torch.inference_mode()
def decode(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """New tokens [rows, at most max_new_tokens], as `plain` gives them where greedy.

    For a model that it `supports`.
    """
    torch.manual_seed(batch.seed)
    run = Decoding(model, batch)
    length = batch.prompts.shape[1]
    end = length + batch.max_new_tokens
    for start in range(length, end - 1, WINDOW):
        if bool(run.finished.all()):
            break
        run.compact()
        run.steps(min(WINDOW, end - 1 - start), window=min(start + WINDOW, end))
    return run.result()


class WindowedLayer(StaticLayer):
    """A preallocated layer of the cache of which attention sees the first `window` positions."""

    window: int

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(key_states, value_states)
        return keys[:, :, : self.window], values[:, :, : self.window]


class Decoding:
    """The state of one batch: tensors that a step changes in place, as CUDA graphs need it.

    `rows` are the places in the batch of the rows still in it, `said` [all rows, max_new_tokens]
    what the others said.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch) -> None:
        rows, length = batch.prompts.shape
        device = batch.prompts.device
        new = batch.max_new_tokens
        self.model, self.pad, self.device = model, batch.pad, device
        self.rows = torch.arange(rows, device=device)
        self.said = torch.full((rows, new), batch.pad, device=device)
        self.layers = [
            WindowedLayer(length + new)
            for _ in range(model.config.get_text_config().num_hidden_layers)
        ]
        self.cache = Cache(layers=self.layers)
        self.temperatures = torch.tensor(batch.temperatures, device=device)[:, None]
        ends = model.generation_config.eos_token_id
        self.ends = torch.tensor(
            [] if ends is None else ends, device=device, dtype=torch.long
        ).flatten()
        self.slots = torch.arange(length + new, device=device)
        self.usable = torch.cat(
            [batch.mask.bool(), batch.mask.new_ones(rows, new, dtype=torch.bool)], dim=1
        )
        self.length = torch.tensor([length], device=device)
        self.count = torch.zeros(1, dtype=torch.long, device=device)
        self.position = batch.mask.sum(1, keepdim=True)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.tokens = torch.full((rows, new), batch.pad, device=device)
        self.token = batch.prompts[:, -1:].clone()
        self._prefill(batch.prompts, batch.mask.bool())

    def _prefill(self, prompts: torch.Tensor, mask: torch.Tensor) -> None:
        length = prompts.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        # a padding position sees itself, so that no row of the mask is empty
        itself = torch.eye(length, dtype=torch.bool, device=self.device)
        seen = (mask[:, None, :] & causal) | itself
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        self._advance(self._forward(prompts, positions, seen[:, None], window=length))

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, window: int
    ) -> torch.Tensor:
        for layer in self.layers:
            layer.window = window
        inputs = {"input_ids": tokens, "position_ids": positions, "attention_mask": mask}
        output = self.model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].float()

    def _step(self, window: int) -> None:
        seen = self.usable[:, :window] & (self.slots[:window] <= self.length)
        logits = self._forward(self.token, self.position, seen[:, None, None], window)
        self.length += 1
        self.position += 1
        self._advance(logits)

    def _advance(self, logits: torch.Tensor) -> None:
        choice = sample(logits, self.temperatures, self.model.generation_config).masked_fill(
            self.finished, self.pad
        )
        self.finished |= torch.isin(choice, self.ends)
        self.tokens.index_copy_(1, self.count, choice[:, None])
        self.token.copy_(choice[:, None])
        self.count += 1

    def compact(self) -> None:
        """Leave out the rows that are done, if they are many. Only between windows."""
        going = (~self.finished).nonzero()[:, 0]
        if len(going) > FULL_ENOUGH * len(self.rows):
            return
        self.said[self.rows] = self.tokens
        for layer in self.layers:
            layer.keys = layer.keys[going]
            layer.values = layer.values[going]
        for name in ("rows", "tokens", "temperatures", "usable", "position", "finished", "token"):
            setattr(self, name, getattr(self, name)[going])

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


def sample(
    logits: torch.Tensor, temperatures: torch.Tensor, config: GenerationConfig
) -> torch.Tensor:
    """One token [rows] from logits [rows, vocabulary].

    The best where greedy, else by temperature, top-k, then top-p. Sampling is the Gumbel maximum,
    which needs no check on the host and so can be captured; generate's own defaults (top_k 50,
    top_p 1) hold where the config sets none.
    """
    sampled = temperatures >= GREEDY
    top_k = (
        min(config.top_k if config.top_k is not None else 50, logits.shape[-1]) or logits.shape[-1]
    )
    scores, tokens = (logits / temperatures.masked_fill(~sampled, 1.0)).topk(top_k)
    probability = scores.softmax(-1)
    before = probability.cumsum(-1) - probability
    scores = scores.masked_fill(
        (before > 0) & (before >= (1.0 if config.top_p is None else config.top_p)), -torch.inf
    )
    noise = -torch.empty_like(scores).exponential_().log()
    drawn = tokens.gather(-1, (scores + noise).argmax(-1, keepdim=True))
    return torch.where(sampled, drawn, logits.argmax(-1, keepdim=True))[:, 0]
