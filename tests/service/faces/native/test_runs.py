"""Runs over HTTP: begun, worked on, paused, resumed, completed."""

DATUM = {"tokens": [5, 9, 41, 7, 11], "loss_mask": [0, 0, 1, 1, 1]}
BATCH = {"data": [DATUM], "loss": {"type": "causal_lm"}}
STEP = {"optimizer": {"learning_rate": 0.01}}


def test_a_run_is_begun_trained_and_its_loss_falls(client):
    run = client.new_run(lora={"rank": 4})
    losses = []
    for _ in range(3):
        losses.append(client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", BATCH)["result"]["loss"])
        client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", STEP)
    assert losses[0] > losses[1] > losses[2]
    assert client.said("GET", f"/v1/runs/{run}")["version"] == 3
