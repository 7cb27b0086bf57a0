"""Task -> output layers and scores."""

import pytest
import torch

from abaw.models.heads import TaskHeads, logits_to_scores
from abaw.models.static import StaticModel
from abaw.models.vit import VitPreset
from abaw.tasks import TASKS

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_logits_of_its_labels(name: str) -> None:
    logits = TaskHeads(TASKS[name], 16)(torch.zeros(5, 16))
    assert {head: value.shape for head, value in logits.items()} == {
        head.name: (5, head.output_dim) for head in TASKS[name].heads
    }


def test_scores_are_probabilities_and_clipped_values() -> None:
    logits = {"au": torch.zeros(1, 12), "expr": torch.zeros(1, 8), "va": torch.tensor([[-3.0, 0.5]])}
    scores = logits_to_scores(TASKS["mtl"].heads, logits)
    assert scores["au"][0, 0] == 0.5
    assert torch.allclose(scores["expr"], torch.full((1, 8), 0.125))
    assert scores["va"].tolist() == [[-1.0, 0.5]]


def test_the_static_model_overfits_eight_samples() -> None:
    torch.manual_seed(0)
    model = StaticModel(TINY, TASKS["expr"])
    images, classes = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(images)["expr"], classes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.eval()(images)["expr"].argmax(-1), classes)
