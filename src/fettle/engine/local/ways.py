"""How a model would be trained and sampled, in words, told from its config: no weight is read or made."""

from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from fettle.config import LocalEngine, PolicySpec, TinyModel
from fettle.engine.local.attention import undrivable
from fettle.engine.local.lean import lean_family
from fettle.engine.local.lora import ADAPTER_CONFIG, read_layout
from fettle.engine.local.tiny import tiny_config

PACKED = "packed: what sequences begin with alike, as a group its prompt, is run once"
LATER = "found out when the model is loaded: its config is not here"


def ways(settings: LocalEngine, policy: PolicySpec) -> dict[str, str]:
    """``training`` and ``sampling``. At load a few tokens are run, and what they disprove is not done."""
    config = config_of(policy.model)
    found = {"training": LATER, "sampling": LATER}
    if config is not None:
        reason = undrivable(config)
        found = {
            "training": f"padded: {reason}" if reason else PACKED,
            "sampling": _sampling(config, reason, quantized=policy.quantization is not None),
        }
    return found | ({"training": "padded: engine.layout says so"} if settings.layout == "padded" else {})


def _sampling(config: PretrainedConfig, reason: str, *, quantized: bool) -> str:
    family = "" if quantized else lean_family(config)
    if not family and reason:
        return f"generic: {reason}"
    way = (
        f"lean: the arithmetic of {family} without transformers' modules"
        if family
        else "driven: transformers' modules under attention of our own"
    )
    window = _window(config)
    return way if window is None else f"{way}; generic where prompt and max_tokens are over {window} tokens"


def _window(config: PretrainedConfig) -> int | None:
    """How many tokens back the layer sees that sees least; None where all see all."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    tokens: int | None = getattr(text, "sliding_window", None)
    return tokens if kinds is None or "sliding_attention" in kinds else None


def config_of(model: str | TinyModel) -> PretrainedConfig | None:
    """A model's config; None where it is not on this machine, or is none that transformers knows."""
    if isinstance(model, TinyModel):
        return tiny_config(model)
    folder = Path(model)
    if (folder / ADAPTER_CONFIG).is_file():
        return config_of(read_layout(folder).base_model)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return None
    return config
