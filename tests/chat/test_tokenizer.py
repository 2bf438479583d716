"""A tokenizer is loaded whole, or one sentence says what is wrong."""

import copy
import re

import pytest
from huggingface_hub import constants

from fettle.chat import check_same_tokenizer, load_tokenizer, tokenizer
from fettle.errors import ModelError


@pytest.fixture
def folder(tokenizers, tmp_path):
    path = tmp_path / "model"
    tokenizers("chatml").save_pretrained(path)
    return path


def test_it_comes_with_its_template(tokenizers, folder):
    loaded = load_tokenizer(str(folder))
    assert loaded.chat_template == tokenizers("chatml").chat_template
    assert loaded.encode("What is 12 + 34?<|im_end|>") == tokenizers("chatml").encode("What is 12 + 34?<|im_end|>")


@pytest.mark.parametrize("name", ["no/such/folder", "nobody/of-this-name", "not a name"])
def test_neither_a_folder_nor_on_the_hub(name):
    with pytest.raises(
        ModelError, match=f"^there is no folder {name}, and the hub gave no model of that name"
    ) as found:
        load_tokenizer(name)
    assert "\n" not in found.value.message


@pytest.mark.parametrize("name", ["./nowhere", "../no/where", "/no/where"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ModelError, match=f"^there is no model folder {re.escape(name)}: give"):
        load_tokenizer(name)


def test_a_hub_whose_name_cannot_be_looked_up_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(tokenizer, "getproxies", dict)
    assert tokenizer.hub_is_out_of_reach()
    monkeypatch.setattr(constants, "ENDPOINT", "https://localhost")
    assert not tokenizer.hub_is_out_of_reach()


@pytest.mark.parametrize(
    ("file", "contents"),
    [
        ("tokenizer.json", ""),
        ("tokenizer.json", '{"version": "1.0", "added_tok'),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": 3}, "added_tokens": []}'),
        ("tokenizer_config.json", ""),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_damaged_files(folder, file, contents):
    (folder / file).write_text(contents)
    with pytest.raises(ModelError, match=r"^the folder .*model holds no tokenizer that can be read") as found:
        load_tokenizer(str(folder))
    assert "\n" not in found.value.message


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="holds no tokenizer that can be read"):
        load_tokenizer(str(tmp_path))


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        ModelError, match=r"no chat template: put a chat_template\.jinja beside it, or start from an instr"
    ):
        load_tokenizer(str(folder))


def test_a_chat_template_put_beside_it_is_enough(folder, tokenizers):
    (folder / "chat_template.jinja").write_text(tokenizers("plain").chat_template)
    assert load_tokenizer(str(folder)).chat_template == tokenizers("plain").chat_template


def test_models_that_share_a_tokenizer_may_read_each_other(tokenizers, folder, tmp_path):
    tokenizers("instruct").save_pretrained(tmp_path / "other-template")
    assert check_same_tokenizer(str(folder), str(folder)) is None
    assert check_same_tokenizer(str(folder), str(tmp_path / "other-template")) is None


def test_a_model_of_another_vocabulary_is_refused(tokenizers, folder, tmp_path):
    other = copy.deepcopy(tokenizers("chatml"))
    other.add_tokens(["extra"])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="they differ in 'extra' and 0 more tokens: name a model of the same family"):
        check_same_tokenizer(str(folder), str(tmp_path / "other"))
    with pytest.raises(ModelError, match=r"there is no model folder \./nowhere"):
        check_same_tokenizer(str(folder), "./nowhere")


def test_a_model_of_other_special_tokens_is_refused(tokenizers, folder, tmp_path):
    other = copy.deepcopy(tokenizers("chatml"))
    other.pad_token = "A"
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="they differ in the special tokens A: "):
        check_same_tokenizer(str(folder), str(tmp_path / "other"))
