"""What no list of architectures knows is found by computing: a wrong or a failing forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.dpo_trainer import DataCollatorForPreference, add_fused_lm_head

from train.sharing.layout import SharingError
from train.sharing.preflight import preflight, small_batch

EXAMPLES = [
    {"prompt_ids": [5, 6, 7, i], "chosen_ids": [8, 2], "rejected_ids": [9, 3, 2]} for i in (1, 4)
]


def model(**fields: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, **fields,
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    add_fused_lm_head(made)
    return made


def check(made: Any) -> None:
    preflight(made, EXAMPLES, DataCollatorForPreference(pad_token_id=0), lambda batch: batch)


def test_a_decoder_passes_and_is_left_as_it_was() -> None:
    made = model()
    check(made)
    assert "forward" not in vars(made.model)
    assert all(parameter.grad is None for parameter in made.parameters())


def test_dropout_is_no_difference_and_is_back_after() -> None:
    """Two passes that draw other masks had gradients 100 % apart."""
    config = LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.5)
    made: Any = get_peft_model(model(), config)
    check(made.train())
    rates = {module.p for module in made.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.5}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda x, position_ids: {"position_ids": torch.zeros_like(position_ids)}, "would be off"),
        (lambda x, position_ids: {"attention_mask": object()}, "fails with the trie's mask"),
    ],
    ids=["computes something else", "fails"],
)
def test_a_model_that_does_otherwise_is_refused_in_one_line(break_it: Any, message: str) -> None:
    """A backbone that treats the trie's positions or mask in its own way."""
    made = model()
    inner = made.model.forward

    def forward(
        input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **kwargs: Any
    ) -> Any:
        given = {"attention_mask": attention_mask, "position_ids": position_ids}
        if position_ids is not None:  # only with shared prefixes
            given |= break_it(input_ids, position_ids)
        return inner(input_ids=input_ids, **given, **kwargs)

    made.model.forward = forward
    with pytest.raises(SharingError, match=message) as error:
        check(made)
    assert "\n" not in str(error.value)
    assert "share_prefixes: false" in str(error.value)
    assert made.model.forward is forward


def test_a_run_is_refused_before_its_first_pass(
    recipe_file: Path,
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import train.run  # noqa: F401  what it imports of the module keeps its own tolerance
    from train.__main__ import main
    from train.sharing import preflight as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "tolerance", lambda model: (-1.0, -1.0))
    assert main([str(recipe_file), "--output_dir", str(tmp_path / "out")]) == 2
    assert "cannot share prefixes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    words = [str(recipe_file), "--output_dir", str(tmp_path / "out"), "--max_pairs", "8"]
    assert main([*words, "--share_prefixes", "false"]) == 0


def test_long_rows_are_cut() -> None:
    """Plainly, 27,000 tokens of one row took more memory than the machine had."""
    row = {"prompt_ids": [1] * 9000, "chosen_ids": [2] * 900, "rejected_ids": [3], "beta": 0.1}
    (short,) = small_batch([row])
    assert [len(short[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == [
        256,
        256,
        1,
    ]
    assert short["beta"] == 0.1
