"""Seeds with names."""

from fettle.randomness import key


def test_neighbouring_seeds_and_indices_share_nothing():
    keys = {key(seed, purpose, index) for seed in range(10) for purpose in ("a", "b") for index in range(10)}
    assert len(keys) == 200


def test_a_key_is_the_same_on_every_machine_and_fits_every_generator():
    assert key(0, "rollout", 1) == 8911054625556009685
    assert 0 <= key("anything") < 2**63
