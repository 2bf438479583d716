"""What a model's tokenizer does, over HTTP; and files for those who want to do it themselves."""

import pytest

from fettle.chat import load_tokenizer

TURNS = [{"role": "user", "content": "one two"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


def test_texts_go_to_tokens_and_back_one_or_several(client, tokenizer):
    texts = ["one two", "three"]
    tokens = client.said("POST", "/v1/tokenize", {"text": texts})["tokens"]
    assert tokens == [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert client.said("POST", "/v1/tokenize", {"text": texts[0]})["tokens"] == tokens[0]
    assert client.said("POST", "/v1/detokenize", {"tokens": tokens})["text"] == texts
    assert client.said("POST", "/v1/detokenize", {"tokens": tokens[0]})["text"] == texts[0]


def test_a_conversation_is_written_as_the_models_own_template_writes_it(client, tokenizer):
    told = client.said("POST", "/v1/chat_template", {"model": "Qwen/Qwen3-8B", "messages": TURNS})
    assert told["text"] == tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert told["tokens"] == tokenizer.encode(told["text"], add_special_tokens=False)


def test_a_tokenizer_can_be_made_of_the_files_that_are_told(client, tokenizer, tmp_path):
    for name in client.said("GET", "/v1/models/tiny/files")["files"]:
        (tmp_path / name).write_bytes(client.get(f"/v1/models/tiny/files/{name}").content)
    assert load_tokenizer(str(tmp_path)).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("file", ["model.safetensors", "..%2ftiny%2fconfig.json", "none"])
def test_weights_and_other_files_are_not_told(client, file):
    assert client.get(f"/v1/models/tiny/files/{file}").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("tokenize", {"text": "a", "model": "none"}, 404),
        ("tokenize", {"text": 3}, 400),
        ("detokenize", {"tokens": [10**6]}, 400),
        ("detokenize", {"tokens": [-1]}, 400),
        ("chat_template", {"messages": []}, 400),
        ("chat_template", {"messages": [{"role": "king", "content": ""}]}, 400),
        ("embeddings", {}, 400),
        ("embeddings", {"texts": [""]}, 400),
        ("embeddings", {"texts": ["a"], "layer": 9}, 400),
    ],
)
def test_what_cannot_be_done_is_refused(client, path, body, status):
    assert client.said("POST", f"/v1/{path}", body, status=status)["detail"]
