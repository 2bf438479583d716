"""A tokenizer whose template takes tools, as a model is served with it."""

import shutil

import pytest
from transformers import PreTrainedTokenizerBase

from fettle.chat import load_tokenizer
from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model
from fettle.service.models import Model

CONTEXT = 2048
PLAIN_TEMPLATE = """{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
TOOLS_TEMPLATE = """{%- if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content }}
{%- for call in message.tool_calls %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model whose template has no place for tools."""
    path = tmp_path_factory.mktemp("tiny")
    made = make_tiny_model(
        TinyModel(hidden=32, layers=2, heads=2, context=CONTEXT), path, texts=["what is two and three? tool call name"]
    )
    (path / "chat_template.jinja").write_text(PLAIN_TEMPLATE)
    return made


@pytest.fixture
def tokenizer(folder) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)


@pytest.fixture
def model(tokenizer) -> Model:
    return Model(
        "tiny", tokenizer.name_or_path, (), tokenizer, context=CONTEXT, vocabulary=len(tokenizer), parameters=0
    )


@pytest.fixture
def tool_model(model) -> Model:
    model.tokenizer.chat_template = TOOLS_TEMPLATE
    return model


@pytest.fixture(scope="module")
def tools_folder(tmp_path_factory, folder) -> str:
    """The same model, with a template that takes tools."""
    path = shutil.copytree(folder, tmp_path_factory.mktemp("tools") / "tiny")
    (path / "chat_template.jinja").write_text(TOOLS_TEMPLATE)
    return str(path)
