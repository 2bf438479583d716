"""A language model as a policy, and as somebody to talk to."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fettle.compat.mrlm.core import EnvironmentMode, GenerationConfig, LLMEnvironment, Message
from fettle.errors import ModelError
from fettle.types import Message as PlainMessage


def test_a_model_is_somebody_to_talk_to(model):
    torch.manual_seed(0)
    held = LLMEnvironment(
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
        generation_config=GenerationConfig(max_new_tokens=4),
        reward_fn=len,
        system_prompt="be brief",
    )
    assert held.mode is EnvironmentMode.CLIENT
    held.reset()
    seen, reward = held.step(Message("user", "hello"))
    assert reward.value == len(seen.messages[0].content)
    assert copy.deepcopy(held).model is held.model


def test_a_tokenizer_without_a_chat_template_writes_a_transcript(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    held = LLMEnvironment(AutoModelForCausalLM.from_pretrained(model), tokenizer, EnvironmentMode.SERVER)
    prompt = held.template.prompt([PlainMessage("user", "hello")])
    assert tokenizer.decode(prompt) == "User: hello\nAssistant:"


def test_a_mode_freezes_and_lets_go(model):
    held = LLMEnvironment(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model))
    assert not any(parameter.requires_grad for parameter in held.model.parameters())
    held.set_mode(EnvironmentMode.SERVER)
    assert all(parameter.requires_grad for parameter in held.model.parameters())


def test_what_is_no_transformers_model_is_refused(model):
    with pytest.raises(ModelError, match="was given a Linear"):
        LLMEnvironment(torch.nn.Linear(1, 1), AutoTokenizer.from_pretrained(model))
