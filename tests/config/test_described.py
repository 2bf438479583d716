"""What a run says of itself: its settings one by one, and the schema of them all."""

import json
from collections.abc import Iterator
from typing import Any, get_args

from fettle.config import (
    CISPO,
    DPO,
    DRO,
    GSPO,
    JSONL,
    KL,
    KTO,
    ORPO,
    OTLP,
    PPO,
    Abort,
    ActorSamplers,
    AdamW,
    AdaptivePenalty,
    Arithmetic,
    Checkpoints,
    Code,
    Constant,
    Conversations,
    Correction,
    Cosine,
    Datadog,
    Debate,
    Dialogue,
    DynamicSampling,
    Episodes,
    Events,
    FileTasks,
    FixedLength,
    Frozen,
    FrozenPlayer,
    Gymnasium,
    HardLimit,
    HTTPServer,
    ImportanceSampling,
    Issues,
    Judge,
    JudgedReward,
    Keep,
    KLControl,
    LagrangianPenalty,
    LaunchedEngine,
    LearnedReward,
    Linear,
    ListedProblems,
    Lookups,
    LoRA,
    Mathematics,
    MathematicsFile,
    MLflow,
    ModelJudge,
    OpenEnv,
    Overlong,
    OwnPlayer,
    PastPlayer,
    Pipeline,
    Planning,
    Plugin,
    PolicySpec,
    PreferenceRun,
    Preferences,
    ProcessServer,
    Prometheus,
    QuadraticPenalty,
    Questions,
    Ratings,
    RayEngine,
    RayWorkers,
    ReasoningGym,
    Registration,
    Rehearsal,
    Remote,
    RemoteTLS,
    RewardModelRun,
    RewardPart,
    RewardWeighting,
    RLRun,
    RunConfig,
    Sampling,
    SequenceMean,
    SequenceSum,
    ServiceEngine,
    SFTRun,
    SimPO,
    Teacher,
    TensorBoard,
    TinyModel,
    TokenMean,
    Tools,
    ToolUse,
    Verifiers,
    VLLMSamplers,
    WandB,
    WorkedCalls,
    WorkedCode,
    WorkedDebates,
    WorkedMathematics,
    WorkedPairs,
    WorkedSums,
    leaves,
    load,
    schema,
)


def rl(**given):
    return RLRun(**{"policy": PolicySpec(model="m"), "environments": (Arithmetic(),), **given})


FULL = rl(
    policy=PolicySpec(model="m", lora=LoRA(rank=4)),
    environments=(Arithmetic(digits=3), ReasoningGym(task="gcd", settings={"max_value": 50})),
    loss=PPO(),
    optimizer=AdamW(clip_norm=None),
    schedule=Cosine(warmup_steps=5),
    sampling=Sampling(stop=("no",)),
    trackers=(
        MLflow(registration=Registration(name="a")),
        WandB(),
        TensorBoard(),
        Prometheus(),
        OTLP(),
        Datadog(),
        Events(url="http://e"),
    ),
)
JUDGE = Judge(url="http://127.0.0.1:8700/v1", model="m")
WORLDS = [
    Mathematics(rewards=(RewardPart(reward="math"),)),
    Mathematics(problems=MathematicsFile(path="a")),
    Code(),
    Issues(path="a", repository="c"),
    Issues(path="a", repository="c", tools=ToolUse()),
    Code(problems=ListedProblems(path="a")),
    Tools(servers={"own": ProcessServer(command=("serve",)), "far": HTTPServer(url="http://127.0.0.1:1/mcp")}),
    *(Tools(tasks=tasks) for tasks in (Lookups(), FileTasks(), Questions(path="a"))),
    Remote(address="127.0.0.1:1", environment="sums", tls=RemoteTLS()),
    Verifiers(taskset="a"),
    Gymnasium(environment="a"),
    OpenEnv(url="ws://127.0.0.1:1/ws"),
    Plugin(name="a"),
    Debate(),
    Debate(judge=ModelJudge(judge=JUDGE)),
    Dialogue(path="a", reward="judge", judge=JudgedReward(judge=JUDGE)),
]
VLLM = VLLMSamplers(urls=("http://127.0.0.1:8000",))
WORKED = [WorkedMathematics(), WorkedCode(), WorkedCalls(), WorkedDebates()]
EVERYTHING = [
    FULL,
    rl(policy=PolicySpec(model=TinyModel()), loss=GSPO(), reduction=FixedLength(), schedule=Linear()),
    rl(environments=(JSONL(path="a"),), loss=CISPO(), reduction=SequenceMean(), dynamic_sampling=DynamicSampling()),
    rl(loss=DRO(kl=KL()), reduction=SequenceSum(), overlong=Overlong(), checkpoints=Checkpoints(keep=1)),
    rl(loss=ImportanceSampling(), reduction=TokenMean(), engine=ServiceEngine(url="http://127.0.0.1:8700")),
    SFTRun(policy=PolicySpec(model="m"), data=WorkedSums(), engine=RayEngine(workers=2)),
    SFTRun(policy=PolicySpec(model="m"), data=WorkedSums(), engine=RayEngine(samplers=ActorSamplers())),
    SFTRun(policy=PolicySpec(model="m"), data=WorkedSums(), engine=RayEngine(samplers=VLLM)),
    SFTRun(policy=PolicySpec(model="m"), data=WorkedSums(), engine=LaunchedEngine(gpu_ids=(0, 1))),
    SFTRun(policy=PolicySpec(model="m"), data=WorkedSums()),
    SFTRun(policy=PolicySpec(model="m"), data=Episodes(path="a"), weighting=RewardWeighting()),
    rl(loss=PPO(kl=KL()), preset="ppo", kl_control=KLControl(target=0.1), trust_region=HardLimit()),
    rl(preset="grpo", trust_region=QuadraticPenalty(), correction=Correction(), planning=Planning(phrases=("so",))),
    rl(max_staleness=1, in_flight=Keep()),
    rl(max_staleness=1, in_flight=Abort(), environment_workers=RayWorkers()),
    rl(preset="grpo", trust_region=AdaptivePenalty(), reward_model=LearnedReward(model="r"), reference="base"),
    rl(preset="off_policy", trust_region=LagrangianPenalty(), rehearsal=Rehearsal(data=Conversations(path="a"))),
    rl(preset="distill", teacher=Teacher(model="t")),
    PreferenceRun(policy=PolicySpec(model="m"), data=WorkedPairs(), loss=SimPO()),
    PreferenceRun(policy=PolicySpec(model="m"), data=Ratings(path="a"), loss=KTO()),
    PreferenceRun(policy=PolicySpec(model="m"), data=Preferences(path="a"), loss=ORPO()),
    PreferenceRun(policy=PolicySpec(model="m"), data=Preferences(path="a"), loss=DPO()),
    RewardModelRun(policy=PolicySpec(model="m"), data=Preferences(path="a")),
    Pipeline(stages=(SFTRun(policy=PolicySpec(model="m"), data=Conversations(path="a")),)),
    *(rl(environments=(world,)) for world in WORLDS),
    rl(environments=(Debate(),), players={"con": OwnPlayer(policy=PolicySpec(model="m"), optimizer=AdamW())}),
    rl(environments=(Debate(),), players={"pro": FrozenPlayer(), "con": PastPlayer()}),
    *(SFTRun(policy=PolicySpec(model="m"), data=data) for data in WORKED),
]
"""Runs that between them hold every class of settings."""


def classes_in(annotation: Any) -> set[type[Frozen]]:
    """The classes of settings that an annotation mentions, not those within them."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return {annotation}
    return {found for inner in get_args(annotation) for found in classes_in(inner)}


def reachable(annotation: Any) -> Iterator[type[Frozen]]:
    for found in classes_in(annotation):
        yield found
        for field in found.model_fields.values():
            yield from reachable(field.annotation)


def test_every_setting_of_every_class_is_a_leaf_or_holds_leaves():
    told = {(owner, name) for run in EVERYTHING for _, owner, name, _ in leaves(run)}
    declared = {(owner, name) for owner in reachable(RunConfig) for name in owner.model_fields}
    holding = {(owner, name) for owner, name in declared if classes_in(owner.model_fields[name].annotation)}
    assert told <= declared
    assert declared - told <= holding


def test_a_leaf_has_the_path_that_an_override_takes():
    for run in EVERYTHING:
        tree = run.model_dump()
        for path, _, name, value in leaves(run):
            found = tree
            for key in path.split("."):
                found = found[int(key)] if key.isdigit() else found[key]
            assert (found, path.rpartition(".")[2]) == (value, name)


def test_what_is_absent_or_holds_no_settings_is_a_leaf():
    told = {path: value for path, _, _, value in leaves(FULL)}
    assert told["optimizer.clip_norm"] is None
    assert told["loss.kl"] is None
    assert told["policy.model"] == "m"
    assert told["policy.lora.targets"] == ("all-linear",)
    assert told["environments.1.settings"] == {"max_value": 50}
    assert [path for path, *_ in leaves(Sampling(stop=()))] == list(Sampling.model_fields)
    assert not {"policy", "policy.lora", "environments", "environments.1", "loss"} & set(told)


# --- the schema -------------------------------------------------------------------------------------


def test_the_schema_describes_every_setting_of_every_class():
    definitions = schema()["$defs"]
    for owner in set(reachable(RunConfig)):
        properties = definitions[owner.__name__]["properties"]
        assert set(properties) == set(owner.model_fields)
        for name, form in properties.items():
            # A field that says the same as the class it holds leaves the saying to it.
            held = definitions.get(form.get("$ref", "").rpartition("/")[2], {})
            assert form.get("description") or held.get("description"), f"{owner.__name__}.{name}"


def test_the_schema_is_json_whose_references_lead_somewhere():
    tree = json.loads(json.dumps(schema()))
    nodes = list(forms(tree))
    assert {node["$ref"].rpartition("/")[2] for node in nodes if "$ref" in node} <= set(tree["$defs"])
    assert not [node for node in nodes if "oneOf" in node]


def test_the_schema_asks_for_a_type_where_loading_does(small, problems):
    tree = schema()
    environment = tree["$defs"]["RLRun"]["properties"]["environments"]["items"]
    assert (tree["required"], environment["required"]) == (["type"], ["type"])
    assert "required" not in tree["$defs"]["RLRun"]["properties"]["schedule"]
    assert load(small("schedule: {warmup_steps: 2}")).schedule == Constant(warmup_steps=2)
    assert "is missing" in problems(small(), "environments=[{digits: 3}]")[0]


def forms(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from forms(inner)
