"""EMAE: the face and an auxiliary view in one encoder."""

import pytest
import torch

from abaw.models.emae import OPERATORS, Emae
from abaw.models.static import StaticModel
from abaw.tasks import TASKS
from tests.unit.models.tiny_models import TINY, overfit

EXPR = TASKS["expr"]


def emae(**options: object) -> Emae:
    torch.manual_seed(0)
    return Emae(TINY, EXPR, **options)  # type: ignore[arg-type]


def pictures(seed: int, count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def static_twin(model: Emae) -> StaticModel:
    static = StaticModel(TINY, EXPR)
    heads = {f"heads.{name}": value for name, value in model.heads.state_dict().items()}
    static.load_state_dict({**model.encoder.state_dict(), **heads})
    return static.eval()


def test_the_face_alone_is_the_static_model() -> None:
    model, images = emae(operator="none").eval(), pictures(1)
    assert torch.equal(model(images)["expr"], static_twin(model)(images)["expr"])
    torch.manual_seed(0)
    fresh = StaticModel(TINY, EXPR).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in model.encoder.state_dict().items())


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_before_training_the_fused_model_is_the_static_one(operator: str) -> None:
    model, images = emae(operator=operator).eval(), pictures(1)
    expected = static_twin(model)(images)["expr"]
    assert torch.allclose(model(images, pictures(2))["expr"], expected, atol=1e-5)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_the_view_counts_once_the_fusion_is_trained(operator: str) -> None:
    """Nothing but the views tells these samples apart."""
    model = emae(operator=operator)
    faces, views, classes = pictures(1, 1).expand(8, -1, -1, -1), pictures(2), torch.arange(8)
    overfit(model, lambda: torch.nn.functional.cross_entropy(model(faces, views)["expr"], classes), steps=150)
    assert torch.equal(model(faces, views)["expr"].argmax(-1), classes)


@pytest.mark.parametrize(("operator", "added"), [("mean", 0), ("concat", 2 * 32 * 32 + 32), ("updown", 2 * 512 + 48)])
def test_an_operator_has_the_parameters_of_its_definition(operator: str, added: int) -> None:
    fusion = emae(operator=operator).fusion
    assert fusion is not None
    assert sum(parameter.numel() for parameter in fusion.merge.parameters()) == added


def test_views_meet_after_the_chosen_block() -> None:
    calls: list[tuple[int, int]] = []
    model = emae(after=1).eval()
    for number, block in enumerate(model.encoder.blocks):
        block.register_forward_hook(lambda _, inputs, __, number=number: calls.append((number, len(inputs[0]))))
    model(pictures(1), pictures(2))
    assert calls == [(0, 16), (1, 8)]  # faces and views, then the faces alone
    assert emae().after == 1  # half of two blocks


def test_scoring_without_the_view_is_refused() -> None:
    with pytest.raises(ValueError, match="auxiliary view"):
        emae()(pictures(1))


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for enabled in (False, True):
        model = emae(drop_path=0.3).train()
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(5)
        model(pictures(1), pictures(2))["expr"].sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_attention_is_that_of_torch() -> None:
    """Against torch's own multi-head attention with the same weights."""
    from abaw.models.emae import CrossAttention

    torch.manual_seed(0)
    ours = CrossAttention(32, 4)
    torch.nn.init.normal_(ours.proj.weight)
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    tokens, others = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    expected = theirs(tokens, others, others, need_weights=False)[0]
    assert torch.allclose(ours(tokens, others), expected, atol=1e-5)
