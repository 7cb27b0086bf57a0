"""Two branches: one frozen, one trained, and their mixed logits."""

import copy

import pytest
import torch

from abaw.errors import AbawError
from abaw.models.fusion import DualBranch, FusionModel, FusionOptions, fusion_from_header
from abaw.tasks import TASKS


def make(mix=0.8, task="mtl"):
    torch.manual_seed(0)
    first = FusionModel(TASKS[task], FusionOptions("netease", (5, 3), 0.3, modality_dropout=0.5))
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return DualBranch(first, second, test_mix=mix)


def windows(seed, size=3, length=6):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.ones(size, length, dtype=torch.bool)
    return torch.randn(size, length, 8, generator=generator), torch.ones(size, length, 2, dtype=torch.bool), rows


def test_scores_are_four_fifths_the_frozen_branch():
    model = make().eval()
    with torch.inference_mode():
        found, first, second = (part(*windows(1)) for part in (model, model.first, model.second))
    for name in ("va", "expr", "au"):
        assert torch.allclose(found[name], 0.8 * first[name] + 0.2 * second[name], atol=1e-6)


def test_in_training_each_branch_sees_its_own_windows():
    model = make().train()
    torch.manual_seed(1)
    found = model(*windows(1), *windows(2))
    torch.manual_seed(1)
    second = model.second(*windows(2))
    assert set(found) == {"va", "expr", "au", "va@hard", "expr@hard", "au@hard"}
    for name in ("va", "expr", "au"):
        assert torch.equal(found[f"{name}@hard"], second[name])
        assert torch.equal(found[name], model.first(*windows(1))[name])


def test_the_frozen_branch_never_changes():
    model = make().train()
    before = {name: value.clone() for name, value in model.first.state_dict().items()}
    found = model(*windows(1), *windows(2))
    sum(value.square().sum() for value in found.values()).backward()
    assert not model.first.training
    assert not model.first.body.encoder.training
    assert model.second.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.first.parameters())
    assert all(parameter.grad is not None for parameter in model.second.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.first.state_dict().items())


def test_a_header_gives_both_branches_again():
    model = make(mix=0.7, task="va")
    header = {"task": "va", "architecture": model.describe()}
    again = fusion_from_header(header, where="here")
    again.load_state_dict(model.state_dict())
    assert again.describe() == model.describe()
    assert model.describe()["model"] == "dual_branch"
    with torch.inference_mode():
        assert torch.equal(again.eval()(*windows(1))["va"], model.eval()(*windows(1))["va"])


def test_a_header_without_its_share_is_refused():
    shape = make(task="va").describe()
    del shape["test_mix"]
    with pytest.raises(AbawError, match="no test_mix"):
        fusion_from_header({"task": "va", "architecture": shape}, where="here")


def test_activations_of_the_trained_branch_may_be_computed_again():
    model = make().train()
    found = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)
        sum(value.square().sum() for value in model(*windows(1), *windows(2)).values()).backward()
        found.append([parameter.grad.clone() for parameter in model.second.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
