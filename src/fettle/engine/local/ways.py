"""How a model would be trained and sampled, in words, told from its config: no weight is read or made."""

from collections.abc import Iterator
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from fettle.config import LocalEngine, TinyModel
from fettle.engine.local.attention import undrivable
from fettle.engine.local.lean import lean_family
from fettle.engine.local.lora import ADAPTER_CONFIG, read_layout
from fettle.engine.local.tiny import tiny_config

PACKED = "packed: what sequences begin with alike, as a group its prompt, is run once"
LATER = "found out when the model is loaded: its config is not here"


def ways(settings: LocalEngine, model: str | TinyModel) -> dict[str, str]:
    """``training`` and ``sampling``. At load a few tokens are run, and what they disprove is not done."""
    return dict(_ways(settings, _config_of(model)))


def _ways(settings: LocalEngine, config: PretrainedConfig | None) -> Iterator[tuple[str, str]]:
    reason = "" if config is None else undrivable(config)
    if settings.layout == "padded":
        yield "training", "padded: engine.layout says so"
    elif config is None:
        yield "training", LATER
    else:
        yield "training", f"padded: {reason}" if reason else PACKED
    family = "" if config is None else lean_family(config)
    if config is None:
        yield "sampling", LATER
    elif family:
        yield "sampling", f"lean: the arithmetic of {family} without transformers' modules"
    else:
        yield "sampling", f"generic: {reason}" if reason else "driven: transformers' modules under attention of our own"


def _config_of(model: str | TinyModel) -> PretrainedConfig | None:
    """None where it is not on this machine, or is none that transformers knows."""
    if isinstance(model, TinyModel):
        return tiny_config(model)
    folder = Path(model)
    if (folder / ADAPTER_CONFIG).is_file():
        return _config_of(read_layout(folder).base_model)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return None
    return config
