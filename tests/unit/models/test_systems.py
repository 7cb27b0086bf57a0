"""The registry of systems: what they take, and how a checkpoint's header brings one back."""

import json
from copy import deepcopy

import pytest
import torch

from abaw.errors import AbawError
from abaw.models.systems import SYSTEMS, FaceModel, ModelOptions, architecture, model_from_header, system_for
from abaw.models.vit import FaceEncoder
from abaw.tasks import TASKS
from tests.unit.models.tiny_models import TINY, tiny_classifier

OPTIONS = {
    "static": ModelOptions(pooling="cls"),
    "emma": ModelOptions(classifier=tiny_classifier(), hidden=24, va_hidden=16, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3),
    "cotex": ModelOptions(views=3, mask_ratio=0.5),
    "emae": ModelOptions(operator="updown", after=1, view="nose", style="dim"),
}
LEARNS = {"static": "va", "emma": "mtl", "cotex": "lsd", "emae": "expr"}


def built(name: str, **changed: object) -> FaceModel:
    torch.manual_seed(0)
    options = OPTIONS[name]
    return SYSTEMS[name].build(TINY, TASKS[LEARNS[name]], options).eval()


def header(name: str) -> dict[str, object]:
    """What a checkpoint says, after its way through JSON."""
    options = OPTIONS[name]
    content = {
        "architecture": {"preset": "tiny", **architecture(name, TINY, options)},
        "task": LEARNS[name],
        "pooling": SYSTEMS[name].pooling or options.pooling,
        "normalisation": {"mean": list(options.mean), "std": list(options.std)},
    }
    return json.loads(json.dumps(content))


def inputs(names: tuple[str, ...]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    found = {name: torch.randn(4, 3, 32, 32, generator=random) for name in ("images", "views")}
    found["noise"] = torch.rand(4, 3, 16, generator=random)
    return [found[name] for name in names]


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_system_gives_logits_of_its_task_for_the_inputs_it_names(name: str) -> None:
    model, heads = built(name), TASKS[LEARNS[name]].heads
    scored = model(*inputs(SYSTEMS[name].scoring))
    assert {key: value.shape for key, value in scored.items()} == {h.name: (4, h.output_dim) for h in heads}
    assert list(scored) == [head.name for head in heads]
    trained = model(*inputs(SYSTEMS[name].inputs))
    assert all(value.shape[-2:] == (4, head.output_dim) for head, value in zip(heads, trained.values(), strict=True))
    assert model.pooled(*inputs(SYSTEMS[name].scoring)).shape == (4, TINY.width)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_header_brings_the_model_back(name: str) -> None:
    model = built(name)
    again = model_from_header(header(name), where="x", classifier=OPTIONS[name].classifier).eval()
    again.load_state_dict(model.state_dict())
    taken = inputs(SYSTEMS[name].scoring)
    for key, value in model(*taken).items():
        assert torch.equal(again(*taken)[key], value)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_encoder_is_found_under_its_prefix(name: str) -> None:
    model = built(name)
    encoders = model.encoders()
    assert all(isinstance(encoder, FaceEncoder) for encoder in encoders)
    weights = model.state_dict()
    first = f"{SYSTEMS[name].encoder}blocks.0.attn.qkv.weight"
    assert torch.equal(weights[first], encoders[0].blocks[0].attn.qkv.weight)
    assert sum(key.endswith("blocks.0.attn.qkv.weight") for key in weights) == len(encoders)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_gradients_reach_every_parameter_with_checkpointing(name: str) -> None:
    model = built(name).train()
    model.set_grad_checkpointing(True)
    logits = model(*inputs(SYSTEMS[name].inputs))
    torch.stack([value.pow(2).sum() for value in logits.values()]).sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_bf16_is_near_fp32(name: str) -> None:
    model, taken = built(name), inputs(SYSTEMS[name].inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(*taken)
    for key, value in model(*taken).items():
        assert torch.allclose(rough[key].float(), value, atol=0.05 * float(value.detach().abs().max()) + 0.02)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_copy_gives_the_same_and_shares_no_weight(name: str) -> None:
    model, taken = built(name), inputs(SYSTEMS[name].scoring)
    copy, expected = deepcopy(model), model(*taken)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for key, value in copy(*taken).items():
        assert torch.equal(value, expected[key])


def test_headers_without_a_models_name_are_of_static_models() -> None:
    old = header("static")
    old["architecture"] = {"preset": "tiny", **TINY.to_dict()}
    assert model_from_header(old, where="x").state_dict().keys() == built("static").state_dict().keys()


def test_emma_comes_back_without_its_classifier_for_features() -> None:
    model = built("emma")
    again = model_from_header(header("emma"), where="x").eval()
    again.load_state_dict(model.state_dict())
    images = inputs(("images",))[0]
    assert torch.equal(again.pooled(images), model.pooled(images))
    with pytest.raises(AbawError, match="together with a frozen classifier, which was not given") as caught:
        again(images)
    assert caught.value.where == "finetune.emma.classifier"


def test_emma_with_another_classifier_is_refused() -> None:
    other = tiny_classifier()
    other._facts["sha256"] = "f" * 64
    with pytest.raises(AbawError, match="not the classifier this model was trained with"):
        model_from_header(header("emma"), where="x", classifier=other)


def test_the_face_alone_takes_no_view() -> None:
    alone, both = ModelOptions(view="none"), ModelOptions()
    emae = SYSTEMS["emae"]
    assert (emae.taken(alone, training=True), emae.taken(both, training=True)) == (("images",), ("images", "views"))
    assert emae.taken(alone, training=False) == ("images",)
    assert SYSTEMS["cotex"].taken(both, training=True) == ("images", "noise")


def test_a_system_for_other_tasks_is_refused_with_those_that_fit() -> None:
    with pytest.raises(AbawError, match='model "emma" is for mtl, not for task va') as error:
        system_for("emma", TASKS["va"])
    assert "static, emae" in error.value.fix
    with pytest.raises(AbawError, match='unknown model "cotext"'):
        system_for("cotext", TASKS["lsd"])
    assert system_for("static", TASKS["lsd"]) is SYSTEMS["static"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("emma", ModelOptions(), "needs a frozen classifier"),
        ("cotex", ModelOptions(mask_ratio=0.97), "leaves none of the 16 patches"),
        ("emae", ModelOptions(operator="sum"), 'unknown operator "sum"'),
        ("emae", ModelOptions(after=2), "leaves none of the 2 blocks"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: ModelOptions, words: str) -> None:
    with pytest.raises(AbawError, match=words):
        SYSTEMS[name].build(TINY, TASKS[LEARNS[name]], options)


def test_outputs_of_another_order_are_refused() -> None:
    swapped = header("cotex") | {"label_order": {"lsd": list(TASKS["lsd"].heads[0].labels)[::-1]}}
    with pytest.raises(AbawError, match="these weights give Surprise, Sadness, .* order is Anger, Disgust"):
        model_from_header(swapped, where="best.safetensors")
