"""What a client sends as a datum becomes one of ours, or K of them."""

import numpy as np
import pytest
import torch
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto

from fettle.calls import Forward, ForwardBackward
from fettle.config import CISPO, DPO, DRO, GSPO, PPO, CausalLM, ImportanceSampling
from fettle.errors import ConfigError, DataError, FettleError, LossInputError, TooLargeError
from fettle.service.faces.tinker import batches

TARGETS = [12, 13, 14]
RL = {"target_tokens": TARGETS, "logprobs": [-1.0, -2.0, -3.0], "advantages": [0.5, 0.0, -0.5]}


def tensor(values, dtype=None):
    array = np.asarray(values)
    kind = dtype or ("float32" if array.dtype.kind == "f" else "int64")
    return types.TensorData(data=array.astype(kind), dtype=kind, shape=list(array.shape))


def request(*data, loss_fn="cross_entropy", config=None, forward_only=False, tokens=(11, 12, 13)):
    """The bytes that the public SDK sends."""
    sent = [
        types.Datum(
            model_input=types.ModelInput.from_ints(list(tokens)),
            loss_fn_inputs={
                name: values if isinstance(values, types.TensorData) else tensor(values)
                for name, values in inputs.items()
            },
        )
        for inputs in data
    ]
    form = types.ForwardBackwardInput(data=sent, loss_fn=loss_fn, loss_fn_config=config)
    message = forward_backward_request_to_proto(
        types.ForwardBackwardRequest(forward_backward_input=form, model_id="m", seq_id=3)
    )
    message.forward_only = forward_only
    return message.SerializeToString()


def read(*data, **how):
    return batches.of_proto(request(*data, **how))


def test_what_belongs_to_a_target_stands_one_place_further():
    batch = read({"target_tokens": TARGETS, "weights": [0.0, 1.0, -2.5]})
    assert (batch.model, batch.seq, batch.widths) == ("m", 3, (0,))
    assert isinstance(batch.call, ForwardBackward)
    assert batch.call.loss == CausalLM()
    (datum,) = batch.call.data
    assert datum.tokens.tolist() == [11, 12, 13, 14]
    assert datum.loss_mask.tolist() == [0, 1, 1, 1]
    assert datum.weights.tolist() == [0, 0, 1, -2.5]
    assert datum.targets is None


def test_targets_that_are_not_the_sequence_itself_are_said():
    (datum,) = read({"target_tokens": [0, 0, 14]}).call.data
    assert datum.targets.tolist() == [0, 0, 0, 14]


def test_weights_that_are_missing_are_ones():
    (datum,) = read({"target_tokens": TARGETS}).call.data
    assert datum.weights.tolist() == [0, 1, 1, 1]


def test_k_targets_a_position_are_k_data_of_the_same_tokens():
    targets = [[12, 5], [13, 0], [14, 7]]
    weights = [[0.5, 0.25], [1.0, 0.0], [0.75, 0.5]]
    batch = read({"target_tokens": targets, "weights": weights})
    assert batch.widths == (2,)
    assert [datum.tokens[:3].tolist() for datum in batch.call.data] == [[11, 12, 13]] * 2
    assert batch.call.data[1].targets.tolist() == [0, 5, 0, 7]
    assert batch.call.data[1].weights.tolist() == [0, 0.25, 0, 0.5]


def test_sparse_rows_say_what_dense_ones_say():
    targets, weights = torch.zeros(3, 9, dtype=torch.int64), torch.zeros(3, 9)
    targets[2, 4], weights[2, 4] = 7, 0.5
    sparse = {
        name: types.TensorData.from_torch_sparse(values)
        for name, values in {"target_tokens": targets, "weights": weights}.items()
    }
    assert sparse["weights"].sparse_col_indices is not None
    dense = {"target_tokens": targets.numpy(), "weights": weights.numpy()}
    one, other = read(sparse).call.data, read(dense).call.data
    assert len(one) == len(other) == 9
    for ours, theirs in zip(one, other, strict=True):
        assert np.array_equal(ours.weights, theirs.weights)
        assert np.array_equal(ours.targets, theirs.targets)


@pytest.mark.parametrize(
    ("name", "config", "loss"),
    [
        ("importance_sampling", None, ImportanceSampling()),
        ("ppo", None, PPO(clip_low=1 - 0.8, clip_high=1.2 - 1)),
        ("ppo", {"clip_low_threshold": 0.0, "clip_high_threshold": 3.0}, PPO(clip_low=1 - 2**-53, clip_high=2.0)),
        ("cispo", None, CISPO(ratio_low=0.0, ratio_high=4.0)),
        ("cispo", {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}, CISPO(ratio_low=0.8, ratio_high=1.2)),
        ("dro", {"beta": 0.1}, DRO(beta=0.1)),
        ("stable_reinforce", {"kl_coeff": 0.25}, CISPO(proximal_coefficient=0.25)),
    ],
)
def test_losses_have_their_settings(name, config, loss):
    batch = read(RL, loss_fn=name, config=config)
    assert batch.call.loss == loss
    assert batch.call.data[0].streams["sampling_logprobs"].tolist() == [0, -1, -2, -3]
    assert batch.call.data[0].streams["advantages"].tolist() == [0, 0.5, 0, -0.5]


def test_gspo_is_token_by_token_with_the_mask_of_its_ratio():
    batch = read({**RL, "sequence_ratio_mask": [0.0, 1.0, 1.0]}, loss_fn="gspo")
    assert isinstance(batch.call.loss, GSPO)
    assert batch.call.loss.level == "token"
    assert batch.call.data[0].streams["sequence_ratio_mask"].tolist() == [0, 0, 1, 1]


def test_ours_go_by_their_names_with_scalars_of_one_value():
    pair = [
        {"target_tokens": TARGETS, "preferred": [float(kind)], "group": [7], "reference_logprobs": [-1.0] * 3}
        for kind in (1, 0)
    ]
    batch = read(*pair, loss_fn="dpo", config={"beta": 0.3})
    assert batch.call.loss == DPO(beta=0.3)
    assert [datum.scalars["preferred"] for datum in batch.call.data] == [1, 0]
    assert {datum.group for datum in batch.call.data} == {"7"}


def test_forward_only_is_no_gradient():
    assert isinstance(read({"target_tokens": TARGETS}, forward_only=True).call, Forward)


def test_json_says_what_protobuf_says():
    datum = {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [11, 12, 13]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": TARGETS, "dtype": "int64"},
            "weights": {"data": [0, 1, -2.5], "dtype": "float32", "shape": [3]},
        },
    }
    tree = {"model_id": "m", "seq_id": 3, "forward_backward_input": {"data": [datum], "loss_fn": "cross_entropy"}}
    (ours,) = batches.of_json(tree).call.data
    (theirs,) = read({"target_tokens": TARGETS, "weights": [0.0, 1.0, -2.5]}).call.data
    assert np.array_equal(ours.tokens, theirs.tokens)
    assert np.array_equal(ours.weights, theirs.weights)


@pytest.mark.parametrize("widths", [(0, 0), (3,), (0, 2, 2, 0, 1)])
def test_widths_stand_in_an_id(widths):
    assert tuple(batches.widths_read(batches.widths_said(widths), len(widths))) == widths


WRONG = {
    "no data": ((), {}, "data is empty"),
    "no targets": (({"weights": [1.0] * 3},), {}, "target_tokens are missing"),
    "too few": (({"target_tokens": [1, 2]},), {}, r"shape \[2\] beside 3 tokens"),
    "too few weights": (({"target_tokens": TARGETS, "weights": [1.0]},), {}, r"weights have shape \[1\]"),
    "floats": (({"target_tokens": [1.0, 2.0, 3.0]},), {}, "send int64"),
    "whole numbers": (({"target_tokens": TARGETS, "weights": [1, 1, 1]},), {}, "send float32"),
    "below 0": (({"target_tokens": [1, -2, 3]},), {}, "no vocabulary"),
    "no number": (({"target_tokens": TARGETS, "weights": [1.0, float("nan"), 1.0]},), {}, r"weights\[2\] is nan"),
    "unknown input": (({"target_tokens": TARGETS, "wieghts": [1.0] * 3},), {}, "did you mean weights"),
    "unknown loss": (({"target_tokens": TARGETS},), {"loss_fn": "cros_entropy"}, "did you mean cross_entropy"),
    "unknown setting": ((RL,), {"loss_fn": "ppo", "config": {"clip_low": 0.1}}, "clip_low_threshold"),
    "text for a number": ((RL,), {"loss_fn": "ppo", "config": {"clip_low_threshold": "x"}}, "finite number"),
    "bounds that cross": ((RL,), {"loss_fn": "ppo", "config": {"clip_high_threshold": 0.5}}, "clip_high"),
    "missing advantages": (
        ({"target_tokens": TARGETS, "logprobs": [0.0] * 3},),
        {"loss_fn": "ppo"},
        "needs advantages",
    ),
    "nothing to read": (({"target_tokens": []},), {"tokens": ()}, "model_input is empty"),
    "k of a policy loss": (({**RL, "target_tokens": [[1], [2], [3]]},), {"loss_fn": "ppo"}, "one target a position"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_by_name(case):
    data, how, message = WRONG[case]
    with pytest.raises(FettleError, match=message) as caught:
        read(*data, **how)
    assert isinstance(caught.value, LossInputError | ConfigError | DataError)


@pytest.mark.parametrize("odd", [None, 0, "x", [], {}, [[1]], {"data": [1], "dtype": {}}, 1e308], ids=str)
def test_json_of_any_other_shape_is_refused_in_words(odd):
    whole = {"model_input": {"chunks": [{"tokens": [1]}]}, "loss_fn_inputs": {"target_tokens": odd}}
    forms = [odd, {"data": odd, "loss_fn": "ppo"}, {"data": [odd], "loss_fn": "ppo"}, {"data": [whole], "loss_fn": odd}]
    forms += [{"data": [{**whole, key: odd}], "loss_fn": "cross_entropy"} for key in whole]
    for form in forms:
        with pytest.raises(FettleError):
            batches.of_json({"model_id": "m", "forward_backward_input": form})
    with pytest.raises(FettleError):
        batches.of_json(odd)


def test_few_bytes_that_say_very_much_are_refused():
    crow = [0] * 2001
    sparse = {
        name: types.TensorData([], dtype, [2000, 2000], sparse_crow_indices=crow, sparse_col_indices=[])
        for name, dtype in (("target_tokens", "int64"), ("weights", "float32"))
    }
    with pytest.raises(TooLargeError, match="fewer of them"):
        read(*[sparse] * 5, tokens=[1] * 2000)
    larger = types.TensorData([], "float32", [2000, 9000], sparse_crow_indices=crow, sparse_col_indices=[])
    with pytest.raises(LossInputError, match="cells"):
        read({"target_tokens": larger}, tokens=[1] * 2000)


def test_bytes_that_were_cut_off_are_refused():
    with pytest.raises(DataError, match="cut off"):
        batches.of_proto(request({"target_tokens": TARGETS})[:-5])


def test_pictures_are_refused():
    body = batches.wire.ForwardBackwardRequest(loss_fn="cross_entropy")
    body.data.add().model_input.add().image.data = b"png"
    with pytest.raises(LossInputError, match="image"):
        batches.of_proto(body.SerializeToString())


def test_stable_reinforce_can_be_switched_off():
    with pytest.raises(ConfigError, match="setting stable_reinforce"):
        batches.of_proto(request(RL, loss_fn="stable_reinforce"), stable_reinforce=False)


def test_damaged_bytes_are_a_request_or_refused_in_words():
    rng = np.random.default_rng(0)
    whole = [
        request({"target_tokens": TARGETS, "weights": [0.0, 1.0, -2.5]}),
        request(RL, loss_fn="ppo", config={"clip_low_threshold": 0.5}),
        request({"target_tokens": [[1, 0], [0, 0], [0, 2]], "weights": [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]}),
    ]
    refusals = []
    for index in range(3000):
        body = bytearray(whole[index % 3])
        for place in rng.integers(0, len(body), rng.integers(1, 6)):
            body[place] = rng.integers(0, 256)
        try:
            batches.of_proto(bytes(body[: rng.integers(1, len(body) + 1)] if index % 2 else body))
        except (LossInputError, ConfigError, DataError) as error:
            refusals.append(error.message)
    assert 500 < len(refusals) < 3000
    assert all(refusals)
