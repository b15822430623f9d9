"""Where models come from, what they are packed into, and what is told about missing ones."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.engine import weights
from agentkit.engine.checks import method_for, stored_quantization
from agentkit.engine.decode import Sampler, Tokens, decode
from agentkit.engine.ledger import Ledger
from agentkit.engine.precision import cast_model
from agentkit.engine.weights import LoadedModel, _eos_ids, load_weights, resolve_device
from agentkit.errors import ModelError, NotFoundError, UsageError
from agentkit.llm.local import LocalModel
from agentkit.settings import SamplingSettings


def few_tokens(loaded: LoadedModel) -> list[int]:
    ledger = Ledger(loaded)
    ledger.align([5, 6, 7, 8])
    steps = decode(ledger, Sampler(SamplingSettings(), "cpu"), stop_ids=frozenset(), max_new_tokens=5)
    return [id for step in steps if isinstance(step, Tokens) for id in step.ids]


@pytest.mark.parametrize(
    "name", ["nonsense", "/no/such/folder", "./nothing", "a/b/c", "org/no-such-model", "~nosuchuser/x"]
)
def test_an_unknown_model_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError, match=r"; .*(models list|hub|without ~)") as caught:
        load_weights(name, device="cpu")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        load_weights(tmp_path)


def test_a_missing_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        load_weights(tmp_path / "model.gguf")


def test_a_damaged_folder(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="cannot load model") as caught:
        load_weights(folder, device="cpu", quantize="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(RuntimeError("CUDA out of memory, tried to allocate memory\nat length"), "free memory, or use a smaller model"),
     (ValueError("model type `new` is not known"), "check that the repository is complete")],
)  # fmt: skip
def test_a_model_of_the_hub_that_fails_is_no_missing_one(
    monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str
) -> None:
    import transformers

    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", failing)
    with pytest.raises(ModelError, match=f"cannot load model 'org/large': .*; {remedy}") as caught:
        load_weights("org/large", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_model_that_takes_no_adapter_is_let_go_before_it_is_loaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Plain:
        takes_adapters = False

    made: list[weakref.ref[Plain]] = []

    def load(*_: Any, **__: Any) -> Plain:
        assert not any(loaded() for loaded in made)
        loaded = Plain()
        made.append(weakref.ref(loaded))
        return loaded

    monkeypatch.setattr(weights, "_load", load)
    for read in ("read_config", "read_lora", "beyond_low_rank"):
        monkeypatch.setattr(weights, read, lambda _: None)
    assert load_weights("some/model", device="cpu", adapter=tmp_path).fixed
    assert len(made) == 2


def test_cuda_takes_a_gguf_file_as_it_is() -> None:
    assert [method_for(q, "cuda", gguf=True) for q in ("auto", "none")] == ["none", "none"]
    for quantize in ("int8", "nf4"):
        with pytest.raises(UsageError, match=rf"^{quantize} on cuda cannot .*; use --quantize none$"):
            method_for(quantize, "cuda", gguf=True)  # type: ignore[arg-type]


def test_a_folder_that_lacks_weights_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(tiny_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 2 of its weights: model\.layers\.1\.mlp\.up_proj.*fetch it again"
    ):
        load_weights(folder, device="cpu", quantize="none")


SMALL = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("Mamba", {"state_size": 4}),
     ("Jamba", {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 2, "attn_layer_period": 2,
                "attn_layer_offset": 1, "mamba_d_state": 4}),
     ("RecurrentGemma", {"num_attention_heads": 4, "lru_width": 64, "pad_token_id": 0}),
     ("Bamba", {"num_attention_heads": 4, "num_key_value_heads": 2, "mamba_n_heads": 8, "mamba_d_head": 16,
                "mamba_n_groups": 1, "attn_layer_indices": [1]})],
)  # fmt: skip
def test_a_state_that_the_cache_does_not_hold_is_refused(
    kind: str, options: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    import transformers

    folder = tmp_path / "model"
    ignored = shutil.ignore_patterns("*.safetensors", "config.json", "generation_config.json")
    shutil.copytree(tiny_folder, folder, ignore=ignored)
    config = getattr(transformers, f"{kind}Config")(**(SMALL | options))
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    with pytest.raises(
        ModelError, match=rf"{config.model_type}, whose state cannot .* turn to turn; choose another"
    ):
        load_weights(folder, device="cpu", quantize="none")


def phi3(**options: Any) -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2}
    return Phi3ForCausalLM(Phi3Config(**(SMALL | heads | options))).eval().requires_grad_(False)


def test_another_type_leaves_what_has_to_be_float32() -> None:
    import torch

    for stored in (torch.float32, torch.bfloat16):
        model = phi3().to(stored)
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        exact = model.model.rotary_emb.inv_freq.clone()
        assert exact.dtype == torch.float32
        model.model.norm.weight.data = torch.rand(64)
        model._keep_in_fp32_modules_strict = {"model.norm"}
        model.register_buffer("table", torch.ones(3, dtype=stored))
        cast_model(model, torch.bfloat16)
        assert torch.equal(model.model.rotary_emb.inv_freq, exact)
        assert model.model.norm.weight.dtype == torch.float32
        assert {model.table.dtype, model.lm_head.weight.dtype} == {torch.bfloat16}


def test_longrope_ends_where_its_factors_change(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    ignored = shutil.ignore_patterns("*.safetensors", "config.json", "generation_config.json")
    shutil.copytree(tiny_folder, folder, ignore=ignored)
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    lengths = {"max_position_embeddings": 512, "original_max_position_embeddings": 128}
    phi3(rope_parameters=rope, **lengths).save_pretrained(folder)
    loaded = load_weights(folder, device="cpu", quantize="none")
    assert loaded.context_length == loaded.info()["context_length"] == 128
    phi3(**lengths).save_pretrained(folder)
    assert load_weights(folder, device="cpu", quantize="none").context_length == 512


@pytest.mark.parametrize(
    ("added", "ends"),
    [
        ({"<|end|>": 7, "<|endoftext|>": 8}, {2, 7, 8}),
        ({"<|end|>": 7, "<|return|>": 9, "<|call|>": 6}, {2, 9}),
    ],
)
def test_what_only_separates_channels_ends_no_turn(added: dict[str, int], ends: set[int]) -> None:
    class Named:
        generation_config = None
        eos_token_id = 9 if "<|return|>" in added else 2

        def get_added_vocab(self) -> dict[str, int]:
            return added

    class Generation:
        eos_token_id = (2,)

    model: Any = Named()
    model.generation_config = Generation()
    assert _eos_ids(model, Named()) == ends


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load model"):
        load_weights(folder, device="cpu", quantize="none")


def test_no_adapter_in_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no adapter"):
        load_weights(tiny_folder, device="cpu", quantize="none", adapter=tmp_path)


def test_device_and_quantization_must_fit_together() -> None:
    import torch

    with pytest.raises(UsageError, match=r"int4 is a CPU kernel; use --quantize nf4 or int8"):
        method_for("int4", "cuda")
    assert [method_for(q, "cuda") for q in ("auto", "int8", "none")] == ["nf4", "bnb-int8", "none"]
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA GPU"):
            resolve_device("cuda")


def test_a_model_that_comes_quantized_stays_as_it_is_on_cuda() -> None:
    assert [method_for(q, "cuda", "mxfp4") for q in ("auto", "none")] == ["none", "none"]
    for quantize in ("nf4", "int8", "int4"):
        with pytest.raises(
            UsageError, match=rf"^{quantize} cannot .* quantized already \(fp8\); use --quantize auto"
        ):
            method_for(quantize, "cuda", "fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{"quant_method": "gptq", "bits": 4}, {"load_in_4bit": True}])
def test_what_a_repository_tells_about_its_quantization(config: dict[str, Any]) -> None:
    from transformers import LlamaConfig

    expected = config.get("quant_method", "bitsandbytes")
    assert stored_quantization(LlamaConfig(quantization_config=config)) == expected
    assert stored_quantization(LlamaConfig()) is None


@pytest.fixture(scope="module")
def bnb_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of bitsandbytes' own 4-bit numbers."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tmp_path_factory.mktemp("bnb") / "model"
    shutil.copytree(tiny_folder, folder)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=nf4, device_map={"": "cpu"})
    model.save_pretrained(folder)
    return folder


def test_a_checkpoint_of_bitsandbytes_runs_on_the_cpu(bnb_folder: Path) -> None:
    loaded = load_weights(bnb_folder, device="cpu")
    info = loaded.info()
    assert (info["quantization"], info["forward_pass"]) == ("bitsandbytes", "torch")
    assert len(few_tokens(loaded)) == 5
    for quantize in ("int8", "nf4"):
        with pytest.raises(
            UsageError, match=r"quantized already \(bitsandbytes\); use --quantize auto or none"
        ):
            load_weights(bnb_folder, device="cpu", quantize=quantize)  # type: ignore[arg-type]


@pytest.mark.parametrize("quantize", ["int8", "int4", "none"])
def test_a_folder_generates_and_tells_about_itself(tiny_folder: Path, quantize: str) -> None:
    loaded = load_weights(tiny_folder, device="cpu", quantize=quantize)  # type: ignore[arg-type]
    assert len(few_tokens(loaded)) == 5
    info = loaded.info()
    assert info["parameters"] == 2 * 49152 * 64 + 2 * (64 * (2 * 64 + 2 * 32 + 3 * 128) + 2 * 64) + 64
    assert info["quantization"] == quantize
    assert info["forward_pass"] == "compiled"
    assert (info["context_length"], info["device"], info["vocabulary"]) == (256, "cpu", 49152)
    assert 2 in loaded.eos_ids


def test_nf4_runs_on_the_cpu(tiny_folder: Path) -> None:
    loaded = load_weights(tiny_folder, device="cpu", quantize="nf4")
    assert len(few_tokens(loaded)) == 5
    info = loaded.info()
    assert info["quantization"] == "nf4"
    assert info["weight_bytes"] < info["parameters"] * 4


def test_the_embedded_models_numbers(smollm: LocalModel) -> None:
    info = smollm.info()
    assert info["name"] == "smollm2-135m"
    assert info["parameters"] == 134_515_008
    assert info["context_length"] == smollm.context_length == 8192
    assert info["architecture"] == "LlamaForCausalLM"


def test_a_gguf_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    loaded = load_weights(path, device="cpu", quantize="none")
    assert len(few_tokens(loaded)) == 5
    with pytest.raises(UsageError, match=r"cannot be applied to a \.gguf"):
        load_weights(path, device="cpu", quantize="nf4")


def write_gguf(path: Path, more: Callable[[Any], None] = lambda _: None, without: str = "") -> None:
    """A random one-layer Llama with a byte-level vocabulary.

    Args:
        path: Where to.
        more: Adds to what the writer writes.
        without: The weight that is left out.
    """
    import gguf
    import numpy as np
    from tokenizers.pre_tokenizers import ByteLevel

    width, heads, inner = 32, 2, 64
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "he"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width), "output_norm": (width,)}
    shapes |= {f"blk.0.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes |= {
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }
    random = np.random.default_rng(0)
    more(writer)
    shapes.pop(without, None)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_auto_is_int4_only_where_that_loses_nothing(tiny_folder: Path, smollm: LocalModel) -> None:
    assert load_weights(tiny_folder, device="cpu").quantization == "int8"
    assert smollm.info()["quantization"] == "int4"  # its file is Q4_1


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft asks transformers for it
def test_quantization_does_not_round_an_adapter_away(tmp_path: Path) -> None:
    """The embedded model's weights lie on int4's levels, and would fall back to them."""
    import torch
    from peft import LoraConfig, get_peft_model

    from agentkit.assets import asset_path

    source = asset_path("smollm2-135m")
    plain = load_weights(source, device="cpu", quantize="none", trainable=True)
    torch.manual_seed(0)
    tuned = get_peft_model(plain.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=5e-2)
    tuned.save_pretrained(tmp_path)
    ids = list(range(400, 440))
    with torch.inference_mode():
        wanted = tuned.float()(torch.tensor([ids])).logits[0]
        with tuned.disable_adapter():
            base = tuned(torch.tensor([ids])).logits[0]
    loaded = load_weights(source, device="cpu", adapter=tmp_path)
    assert loaded.quantization == "int4"
    change = loaded.forward_all(ids, loaded.adapter) - loaded.forward_all(ids)
    assert float((change - (wanted - base)).norm()) < 0.3 * float((wanted - base).norm())

    # Under bitsandbytes, CUDA's default, it stands beside the weights.
    beside, alone = (load_weights(source, device="cpu", quantize="nf4", adapter=a) for a in (tmp_path, None))
    assert beside.info()["forward_pass"] == alone.info()["forward_pass"] == "torch"
    change = beside.forward_all(ids, beside.adapter) - alone.forward_all(ids)
    assert float(torch.cosine_similarity(change.flatten(), (wanted - base).flatten(), dim=0)) > 0.3

    # A model that was merged and saved has no adapter to be told by: its weights have to.
    tuned.merge_and_unload().bfloat16().save_pretrained(tmp_path / "merged")
    plain.tokenizer.save_pretrained(tmp_path / "merged")
    assert load_weights(tmp_path / "merged", device="cpu").quantization == "int8"
