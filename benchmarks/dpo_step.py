"""A DPO step's milliseconds, and what each change to it would save, on one CUDA GPU.

    python benchmarks/dpo_step.py --shape SHAPE --data FOLDER --json out.json [--only base,fp8]

SHAPE and FOLDER are those of dpo_throughput.py, whose base and pairs are taken, without LoRA
dropout. All batches have one packed length, so that a variant costs one compilation. Each is timed
over the same steps in a process of its own, since PyTorch's allocator does not survive that one
variant's recordings are dropped for the next one's. Gradients of one small batch are compared with
those of plain TRL in fp32: `distance` is relative, and the row `base` has bf16's own.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import dpo_throughput as whole
import torch
from torch import Tensor

LENGTH = 5632  # three quarters of the split's batches of 32 pairs have no more distinct tokens
WARM, TIMED = 4, 24  # steps
E4M3_LARGEST = 448.0

Variant = Callable[[Any], contextlib.AbstractContextManager[None]]


class Fp8Linear(torch.nn.Module):
    """A frozen linear layer whose products are taken in e4m3, forward and for the input's gradient.

    Scales: one for each token, and one for each output (forward) or input (backward) of the weight.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.by_output = torch.nn.Buffer(rowwise(linear.weight.detach())[0], persistent=False)
        self.scale_of_output = torch.nn.Buffer(rowwise(linear.weight.detach())[1], persistent=False)
        turned = linear.weight.detach().t().contiguous()
        self.by_input = torch.nn.Buffer(rowwise(turned)[0], persistent=False)
        self.scale_of_input = torch.nn.Buffer(rowwise(turned)[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., inputs] to [..., outputs]."""
        flat = x.reshape(-1, x.shape[-1])
        weights = self.by_output, self.scale_of_output, self.by_input, self.scale_of_input
        y = Fp8Product.apply(flat, *weights).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class Fp8Product(torch.autograd.Function):
    """x W^T, and of its gradient the part of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, by_output: Tensor, scale: Tensor, by_input: Tensor, back: Tensor
    ) -> Tensor:
        """The product [tokens, outputs]."""
        ctx.save_for_backward(by_input, back)
        return fp8_product(x, by_output, scale)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor) -> Any:
        """The gradient [tokens, inputs]."""
        by_input, back = ctx.saved_tensors
        return fp8_product(of_y, by_input, back), None, None, None, None


def rowwise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [rows, n] as e4m3, and each row's scale [rows, 1]."""
    scale = x.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / E4M3_LARGEST
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


def fp8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [tokens, n] times the transpose of weight [m, n], in bf16."""
    small, of_x = rowwise(x)
    return torch._scaled_mm(
        small,
        weight.t(),
        scale_a=of_x,
        scale_b=scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


@contextlib.contextmanager
def recorded_anew(trainer: Any) -> Iterator[None]:
    """Forget what was compiled and recorded, before and after."""
    for last in (False, True):
        trainer.sharing.recorded.clear()
        torch._dynamo.reset()
        if not last:
            yield


@contextlib.contextmanager
def unchanged(trainer: Any) -> Iterator[None]:
    """The product as it is."""
    yield


def log_every(steps: int) -> Variant:
    """Log once in so many steps."""

    @contextlib.contextmanager
    def apply(trainer: Any) -> Iterator[None]:
        trainer.args.logging_steps = steps
        yield
        trainer.args.logging_steps = 1

    return apply


def attention(expand: bool = True, **options: Any) -> Variant:
    """FlexAttention with kernel options; not expand: query heads share keys and values."""

    @contextlib.contextmanager
    def apply(trainer: Any) -> Iterator[None]:
        from transformers import AttentionInterface
        from transformers.integrations.flex_attention import flex_attention_forward

        from train.sharing.attention import EXPANDED, expanded_flex_attention

        inner = expanded_flex_attention if expand else flex_attention_forward

        def changed(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs, kernel_options=options or None)

        AttentionInterface.register(EXPANDED, changed)
        try:
            with recorded_anew(trainer):
                yield
        finally:
            AttentionInterface.register(EXPANDED, expanded_flex_attention)

    return apply


@contextlib.contextmanager
def walk(trainer: Any) -> Iterator[None]:
    """`model.train()` through all modules in every step, as Trainer has it."""
    inner = trainer.training_step

    def training_step(*args: Any) -> Any:
        trainer.model.train()
        return inner(*args)

    trainer.training_step = training_step
    try:
        yield
    finally:
        del trainer.training_step


@contextlib.contextmanager
def blocks_of_64(trainer: Any) -> Iterator[None]:
    """FlexAttention's mask in blocks of 64: 14 % fewer scores, half as many behind a mask function.

    Inductor's default for an H100 has larger tiles, so this needs INDUCTOR's tuning.
    """
    from train.sharing import mask

    before = mask.FLEX_BLOCK
    mask.FLEX_BLOCK = 64
    try:
        with recorded_anew(trainer):
            yield
    finally:
        mask.FLEX_BLOCK = before


@contextlib.contextmanager
def fp8(trainer: Any) -> Iterator[None]:
    """All frozen linear layers but the head in FP8."""
    replaced = []
    for name, module in list(trainer.model.named_modules()):
        frozen = isinstance(module, torch.nn.Linear) and not module.weight.requires_grad
        if frozen and "lm_head" not in name and "lora_" not in name:
            parent, _, child = name.rpartition(".")
            replaced.append((trainer.model.get_submodule(parent), child, module))
    with recorded_anew(trainer):
        for parent, child, module in replaced:
            setattr(parent, child, Fp8Linear(module))
        try:
            yield
        finally:
            for parent, child, module in replaced:
                setattr(parent, child, module)


VARIANTS: dict[str, Variant] = {
    "base": unchanged,
    "grouped": attention(expand=False),
    "walk": walk,
    "tuned": unchanged,
    "tuned64": blocks_of_64,
    "elementwise": unchanged,
    "warps4": attention(bwd_num_warps=4),
    "stages2": attention(bwd_num_stages=2),
    "safe": attention(ROWS_GUARANTEED_SAFE=True),
    "log_10": log_every(10),
    "fp8": fp8,
}
# Environment of a variant's process: Inductor tries kernels' tile sizes, but of no matrix product.
TUNED = {
    "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    "TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS": "ATEN",
}
INDUCTOR: dict[str, dict[str, str]] = {
    "tuned": TUNED,
    "tuned64": TUNED,
    "elementwise": {
        "TORCHINDUCTOR_MAX_AUTOTUNE_POINTWISE": "1",
        "TORCHINDUCTOR_COORDINATE_DESCENT_TUNING": "1",
    },
}


class FixedOrder:
    """Pairs in a given order, in every epoch."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def make(bench: whole.Bench, out: str) -> Any:
    """The product's trainer, on batches that fit LENGTH, each packed to it; without a reference."""
    from train.recipe import Recipe
    from train.sharing.lengths import distinct_tokens
    from train.trainer.assemble import make_trainer
    from train.trainer.batches import sequences
    from train.trainer.config import config

    fields = {**whole.COMMON, "lora_dropout": 0.0}
    recipe = Recipe(model_name_or_path=bench.base, **fields)
    args = config(recipe, Path(out), recipe.effective_batch_size, 1)
    args.max_steps, args.save_strategy = WARM + TIMED, "no"
    trainer = make_trainer(recipe, bench.rows, bench.tokenizer, args)
    trainer.sharing.rounding["lengths"] = [LENGTH]
    order, size = list(trainer.order), recipe.effective_batch_size
    kept: list[int] = []
    for first in range(0, len(order) - size + 1, size):
        batch = order[first : first + size]
        if distinct_tokens(row for i in batch for row in sequences(bench.rows[i])) <= LENGTH:
            kept += batch
    trainer.order = FixedOrder(kept)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        trainer.train_dataset = trainer.train_dataset.add_column(name, [-100.0] * len(bench.rows))
    trainer.precompute_ref_logps = True
    return trainer


def seconds_a_step(trainer: Any) -> float:
    """Mean of the timed steps; the device is waited for at both ends alone."""
    from transformers import TrainerCallback

    ends: dict[int, float] = {}

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (WARM, WARM + TIMED):
                ends[state.global_step] = whole._now()

    callback = Ends()
    trainer.add_callback(callback)
    trainer.train()
    trainer.remove_callback(callback)
    return (ends[WARM + TIMED] - ends[WARM]) / TIMED


def gradient(trainer: Any, pairs: int = 8) -> Tensor:
    """The gradients of every LoRA weight, flattened, in fp32, at weights drawn at random."""
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    drawn = torch.Generator().manual_seed(1)
    for parameter in trained:  # in place: recorded graphs read this memory
        parameter.data.copy_(torch.randn(parameter.shape, generator=drawn) * 0.02)
    inputs = trainer._prepare_inputs(
        trainer.data_collator([trainer.train_dataset[i] for i in range(pairs)])
    )
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.state.max_steps = trainer.current_gradient_accumulation_steps = 1
    # Trainer's own autocast comes with `train` alone; without it LoRA's products are in fp32
    with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=pairs)
    loss.backward()
    found = torch.cat([parameter.grad.flatten().float() for parameter in trained])
    for parameter, value in zip(trained, before, strict=True):
        parameter.data.copy_(value)
    trainer.model.zero_grad()
    return found


def exact_gradient(bench: whole.Bench, pairs: int = 8) -> Tensor:
    """The same by plain TRL in fp32."""
    from train.recipe import Recipe
    from train.trainer.assemble import make_trainer
    from train.trainer.config import config

    fields = {**whole.COMMON, "lora_dropout": 0.0, "share_prefixes": False, "memory": "small"}
    recipe = Recipe(model_name_or_path=bench.base, dtype="float32", **fields)
    with tempfile.TemporaryDirectory() as out:
        args = config(recipe, Path(out), pairs, 1)
        trainer = make_trainer(recipe, bench.rows[:pairs], bench.tokenizer, args)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        trainer.train_dataset = trainer.train_dataset.add_column(name, [-100.0] * pairs)
    trainer.precompute_ref_logps = True
    return gradient(trainer, pairs)


def measure(name: str, trainer: Any, exact: Tensor) -> dict[str, Any]:
    """The row of the variant that the trainer runs as."""
    started = time.perf_counter()
    found = gradient(trainer)
    compiled = time.perf_counter() - started
    seconds = seconds_a_step(trainer)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "variant": name,
        "milliseconds": 1000 * seconds,
        "pairs_per_second": trainer.recipe.effective_batch_size / seconds,
        "distance": float((found - exact).norm() / exact.norm()),
        "compile_seconds": compiled,
        "recordings": len(trainer.sharing.recorded),
        "losses": [round(loss, 4) for loss in losses[:3]],
    }


def in_own_process(name: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """One variant's row, measured by this program anew; what fails there costs no other variant."""
    command = [sys.executable, __file__, "--shape", options.shape, "--data", options.data]
    command += ["--folder", folder, "--only", name]
    if options.profile:
        command.append("--profile")
    environment = {**os.environ, **INDUCTOR.get(name, {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    print(done.stdout, end="", flush=True)
    for line in done.stdout.splitlines():
        if line.startswith('{"variant"'):
            return dict(json.loads(line))
    return {"variant": name, "failed": f"exit code {done.returncode}"}


def in_this_process(name: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """One variant's row; the base and the exact gradient are made once in `folder`."""
    from train.recipe import Recipe

    base, tokenizer = whole.random_base(options.shape, folder)
    recipe = Recipe(model_name_or_path=base, **whole.COMMON)
    bench = whole.Bench(base, tokenizer, whole.token_rows(recipe, tokenizer), False)
    kept = Path(folder, "gradient.pt")
    if not kept.exists():
        torch.save(exact_gradient(bench), kept)
    with tempfile.TemporaryDirectory() as out:
        trainer = make(bench, out)
        with VARIANTS[name](trainer):
            try:
                row = measure(name, trainer, torch.load(kept))
            except Exception as error:
                row = {"variant": name, "failed": f"{type(error).__name__}: {error}"[:600]}
            print(json.dumps(row), flush=True)
            if options.profile and "failed" not in row:
                print_profile(trainer)
    return row


def print_profile(trainer: Any) -> None:
    """The kernels of four more steps, and where compiling spent its time."""
    trainer.args.max_steps = 4
    with whole.profiled(True):
        trainer.train()
    print(torch._dynamo.utils.compile_times())


def main() -> int:
    """Measure the variants in order; print a line for each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--shape", default="Qwen/Qwen3-1.7B")
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", help="of the random base, kept; default: a temporary one")
    parser.add_argument("--only", default=",".join(VARIANTS))
    parser.add_argument("--profile", action="store_true", help="kernels of four more steps")
    options = parser.parse_args()
    os.environ["TATQA_DATA"] = options.data
    names = options.only.split(",")
    needed = INDUCTOR.get(names[0], {})
    ready = all(os.environ.get(name) == value for name, value in needed.items())
    run = in_this_process if len(names) == 1 and ready else in_own_process
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            rows.append(run(name, options.folder or temporary, options))
            if options.json:
                found = {"device": device(), "rows": rows}
                options.json.write_text(json.dumps(found))
    return 0


def device() -> str:
    """The GPU's name, asked in a way that takes none of its memory."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    return names.partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
