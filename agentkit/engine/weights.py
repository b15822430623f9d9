"""Loading a causal language model: folder, hub id or GGUF file; quantization; device.

safetensors and GGUF only, and never code from a model repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from agentkit.engine.checks import (
    as_own_errors,
    check_state,
    check_whole,
    locate,
    method_for,
    quantized_already,
    stored_quantization,
)
from agentkit.engine.gguf_files import read_positions, scale_attention, scale_positions
from agentkit.engine.merged import method_for_merged, quiet_bitsandbytes, with_adapter
from agentkit.engine.peft_files import beyond_low_rank, read_config, read_lora
from agentkit.engine.precision import cast_model, native_dtype
from agentkit.errors import UsageError
from agentkit.settings import Device, Quantize

if TYPE_CHECKING:
    import torch

    from agentkit.engine.decoder import Decoder
    from agentkit.engine.native import NativeDecoder
    from agentkit.engine.peft_files import PreparedLora


_BITSANDBYTES = ("nf4", "bnb-int8")


@dataclass(slots=True)
class LoadedModel:
    """A model ready to decode."""

    name: str
    model: Any
    """The transformers model; its linears are packed where the engine is ours."""
    decoder: NativeDecoder | Decoder | None
    """The engine's own forward pass, where the architecture is one that it covers."""
    tokenizer: Any
    device: str
    quantization: str
    context_length: int
    eos_ids: frozenset[int]
    parameters: int
    adapter: PreparedLora | None = None
    """The one that `load_weights` was asked for, where it runs beside the weights."""
    fixed: bool = False
    """An adapter is part of the weights, or of the transformers model."""

    @property
    def vocab_size(self) -> int:
        """Rows of the output head; may exceed the tokenizer's vocabulary."""
        return int(self.model.get_output_embeddings().out_features)

    @property
    def takes_adapters(self) -> bool:
        """Whether adapters run beside the weights, any number of them: on the engine's own forward passes."""
        return self.decoder is not None and not self.fixed

    def load_adapter(self, folder: Path, name: str | None = None) -> PreparedLora:
        """A PEFT LoRA adapter, to run beside the weights in the caches that are made for it.

        Args:
            folder: Where it lies.
            name: How it is called in messages; by default as the folder.

        Raises:
            NotFoundError: There is no adapter.
            ModelError: It is damaged, or does not fit the model.
            UsageError: It, or this model, cannot be run that way.
        """
        remedy = f"start again with --adapter {folder}"
        if self.decoder is None or self.fixed:
            cause = "has an adapter in its weights" if self.fixed else "runs through transformers"
            raise UsageError(f"{self.name} {cause}: no other adapter can be put beside it", remedy)
        if other := beyond_low_rank(read_config(folder)):
            raise UsageError(f"adapter {folder} has to be merged into the weights ({other})", remedy)
        return self.decoder.pack_adapter(name or folder.name, read_lora(folder))

    def new_cache(self, adapter: PreparedLora | None = None) -> Any:
        """An empty KV cache of a conversation with an adapter, or with none.

        Raises:
            ValueError: This model takes none.
        """
        from agentkit.engine.cache import new_cache

        if self.decoder is not None:
            return self.decoder.new_cache(cast(Any, adapter))  # one that it has prepared itself
        if adapter is not None:
            raise ValueError(f"{self.name} takes no adapters beside its weights")
        return new_cache(self.model.config)

    def forward(self, ids: Sequence[int], cache: Any, *, every: bool = False) -> torch.Tensor:
        """Append ``ids`` to the cache.

        Returns:
            The logits after the last id, shape (vocabulary,), or with ``every`` after each, (len(ids), vocabulary);
            float32.
        """
        import torch

        with torch.inference_mode():
            new = torch.tensor(ids, device=self.device)
            if self.decoder is not None:
                return self.decoder(new, cache, every=every)
            out = self.model(
                input_ids=new[None], past_key_values=cache, use_cache=True, logits_to_keep=0 if every else 1
            )
            return (out.logits[0] if every else out.logits[0, -1]).float()  # type: ignore[no-any-return]

    @property
    def batches(self) -> bool:
        """Whether several conversations can share a forward pass."""
        return self.decoder is not None

    def forward_batch(
        self, ids: Sequence[Sequence[int]], caches: Sequence[Any], last: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Append ids to several caches in one pass, `families.ROWS` ids at most; only where it `batches`.

        Args:
            last: After how many of the last ids of each the logits are wanted.

        Returns:
            The logits of each, (last, vocabulary), float32.
        """
        import torch

        if self.decoder is None:
            raise ValueError(f"{self.name} runs through transformers, one conversation at a time")
        with torch.inference_mode():
            new = [torch.tensor(part, device=self.device) for part in ids]
            return torch.split(self.decoder.batch(new, caches, last), list(last))

    def forward_all(self, ids: Sequence[int], adapter: PreparedLora | None = None) -> torch.Tensor:
        """Logits after each id of a text, (len(ids), vocabulary), float32."""
        return self.forward(ids, self.new_cache(adapter), every=True)

    def info(self) -> dict[str, Any]:
        """What `agentkit models info` prints."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        stored = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "parameters": self.parameters,
            "device": self.device,
            "quantization": self.quantization,
            "weight_bytes": stored,
            "forward_pass": "transformers" if self.decoder is None else self.decoder.name,
            "context_length": self.context_length,
            "vocabulary": self.vocab_size,
        }


def load_weights(
    source: str | Path,
    *,
    name: str | None = None,
    device: Device = "auto",
    quantize: Quantize = "auto",
    adapter: Path | None = None,
    trainable: bool = False,
    dtype: torch.dtype | None = None,
    compile: bool = False,
) -> LoadedModel:
    """Load a chat model.

    Args:
        source: A folder in transformers form, a ``.gguf`` file, or a hub id.
        name: How the model is called in messages; defaults to ``source``.
        device: ``auto`` takes CUDA where there is one.
        quantize: ``auto`` is nf4 on CUDA; on the CPU int4 where that loses nothing (`fits_int4`), else int8; with an
            adapter that has to be merged ``none``. A model that comes quantized stays so where transformers can
            run it.
        adapter: Folder of a PEFT LoRA adapter. Beside the weights on the engine's own forward passes; merged into them,
            under bitsandbytes put into the transformers model, where the model runs through transformers or the adapter
            is more than low-rank products (DoRA, other embeddings …).
        compile: Use torch.compile where the forward pass is torch's (CUDA, bitsandbytes); the CPU's is compiled anyway.
        trainable: Leave the transformers model as it is, in a type that is fast here: for training.
        dtype: That type, where not the usual one; also what quantized weights are multiplied in.

    Raises:
        NotFoundError: There is no such model.
        ModelError: The files cannot be loaded, weights are missing, or the model cannot be carried from turn to turn.
        UsageError: Device, quantization and adapter do not fit together.
    """
    options: dict[str, Any] = {"name": name or str(source), "device": device, "quantize": quantize,
                               "trainable": trainable, "dtype": dtype, "compile": compile}  # fmt: skip
    if adapter is None:
        return _load(source, adapter=None, **options)
    if not trainable and not beyond_low_rank(read_config(adapter)):
        read_lora(adapter)  # what is damaged is told before the model is loaded
        loaded = _load(source, adapter=None, **options)
        if loaded.takes_adapters:
            loaded.adapter = loaded.load_adapter(adapter)
            return loaded
        del loaded  # there may be no memory for two
    loaded = _load(source, adapter=adapter, **options)
    loaded.fixed = True
    return loaded


def _load(
    source: str | Path,
    *,
    name: str,
    device: Device,
    quantize: Quantize,
    adapter: Path | None,
    trainable: bool,
    dtype: torch.dtype | None,
    compile: bool,
) -> LoadedModel:
    """A model; an adapter is merged into its weights, or stands in the transformers model under bitsandbytes."""
    device_name = resolve_device(device)
    origin, gguf = locate(str(source))
    own = None
    if gguf is None and (device_name == "cuda" or quantize == "nf4"):
        own = stored_quantization(_load_part(name, "AutoConfig", origin))
    method = method_for(quantize, device_name, own, gguf=gguf is not None)
    if adapter is not None and device_name == "cpu":
        method = method_for_merged(method)
    packs = device_name == "cpu" and method not in _BITSANDBYTES and not trainable
    # What is packed is loaded as it was stored, so that it is rounded once.
    stored = {"dtype": "auto" if adapter is None else "float32"} if packs else {}
    options = _load_options(method, device_name, gguf, dtype) | stored
    model, tokenizer = _load_model(name, origin, gguf, device_name, options)
    held = getattr(model, "quantization_method", None)  # none where transformers had to undo it
    if held and method not in _BITSANDBYTES:
        own = str(getattr(held, "value", held))
        if method in ("int4", "int8"):
            raise quantized_already(method, own)
        packs, method = False, own
    if adapter is not None:
        model = with_adapter(model, adapter, merge=not held)
    model.eval().requires_grad_(False)
    parameters = int(model.num_parameters())
    decoder: NativeDecoder | Decoder | None
    if packs:
        decoder, method = _native_decoder(model, method, merged=adapter is not None)
        _leave_file(model)
    else:
        if method in _BITSANDBYTES and device_name == "cpu":
            _leave_file(model)
        decoder = None if trainable else _torch_decoder(model, compile=compile)
    context = _context_length(model.config.get_text_config())
    return LoadedModel(
        name, model, decoder, tokenizer, device_name, method, context, _eos_ids(model, tokenizer), parameters
    )


def _load_model(
    name: str, origin: str, gguf: str | None, device: str, options: dict[str, Any]
) -> tuple[Any, Any]:
    """The whole transformers model, where it belongs, and its tokenizer."""
    positions = None
    if gguf is not None:
        with as_own_errors(name, origin):
            positions = read_positions(Path(origin) / gguf)
    tokenizer = _load_part(name, "AutoTokenizer", origin, gguf_file=gguf)
    model, report = _load_part(
        name, "AutoModelForCausalLM", origin, gguf_file=gguf, output_loading_info=True, **options
    )
    check_whole(name, report["missing_keys"], gguf=gguf is not None)
    check_state(name, model)
    if positions is not None:
        scale_attention(model)
        scale_positions(model, positions)
        model.to(device)  # others are loaded where they belong
    return model, tokenizer


def _context_length(config: Any) -> int:
    """Tokens that a conversation can have.

    longrope turns all positions otherwise once there are more than the original number. Keys that are in the cache by
    then stay turned as they were, and are no longer understood: beyond that number there is no conversation here.
    """
    length = int(getattr(config, "max_position_embeddings", 0) or 2048)
    scaling = getattr(config, "rope_parameters", None) or {}
    if scaling.get("rope_type") == "longrope":
        length = min(length, int(scaling["original_max_position_embeddings"]))
    return length


def _leave_file(model: Any) -> None:
    """Copy what was not packed: it lies in the mapped file, and would keep all of it in memory."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _native_decoder(model: Any, method: str, *, merged: bool) -> tuple[NativeDecoder | None, str]:
    """The compiled forward pass over packed weights, if it covers the model, and the quantization that was chosen."""
    from agentkit.engine.native import NativeDecoder
    from agentkit.engine.packed import fits_int4, pack_linears, plain_kind
    from agentkit.engine.simd import Kind

    if method == "auto":
        method = "int4" if fits_int4(model) else "int8"
    kinds: dict[str, Kind] = {"int4": "int4", "int8": "int8"}
    kind = kinds.get(method, "float16" if merged else plain_kind(model.dtype))
    try:
        decoder = NativeDecoder(model, kind)
    except NotImplementedError:
        if not merged:  # an adapter's part may be smaller than bf16's steps
            cast_model(model, native_dtype())
        if method != "none":
            pack_linears(model, kind)
        return None, method
    return decoder if decoder.agrees() else None, method


def _torch_decoder(model: Any, *, compile: bool) -> Decoder | None:
    """The forward pass written out in torch, if it covers the model; on a GPU its steps are recorded."""
    from agentkit.engine.decoder import Decoder

    try:
        decoder = Decoder(model)
    except NotImplementedError:
        return None
    if not decoder.agrees():
        return None
    if compile:
        decoder.compile()
    decoder.record()
    return decoder


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Where a setting means to compute; torch is set up for it.

    Raises:
        UsageError: CUDA was asked for, and there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but torch sees no CUDA GPU", "use --device cpu or auto")
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    # torch prefers cuDNN's attention on newer cards, which makes a plan for every new length of a conversation: that
    # takes longer than to compute it by another kernel.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return "cuda"


def _load_options(method: str, device: str, gguf: str | None, dtype: torch.dtype | None) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig, GgufConfig

    dtype = dtype or (torch.bfloat16 if method in _BITSANDBYTES else native_dtype(device))
    options: dict[str, Any] = {"dtype": dtype}
    if gguf is None:
        options["use_safetensors"] = True
    if method in _BITSANDBYTES:
        quiet_bitsandbytes()
        options["device_map"] = {"": device}
        options["quantization_config"] = (
            # The defaults are fp4 with fp32 compute; nf4 with bf16 is the QLoRA setting (arXiv:2305.14314).
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
            if method == "nf4"
            else BitsAndBytesConfig(load_in_8bit=True)
        )
    elif gguf is not None:
        options["quantization_config"] = GgufConfig(dequantize=True)
    elif device == "cuda":
        options["device_map"] = {"": device}
    return options


def _load_part(label: str, kind: str, origin: str, **options: Any) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    factory = getattr(transformers, kind)
    options = {key: value for key, value in options.items() if value is not None}
    with as_own_errors(label, origin):
        return factory.from_pretrained(origin, trust_remote_code=False, **options)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a turn: generation config, tokenizer, and the usual end-of-turn tokens."""
    found: set[int] = set()
    for value in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(value)
    added = tokenizer.get_added_vocab()
    for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>"):
        # In harmony, the format of gpt-oss, <|end|> is between the parts of a turn, and <|return|> behind it.
        if token in added and not (token == "<|end|>" and "<|return|>" in added):
            found.add(added[token])
    return frozenset(found)
