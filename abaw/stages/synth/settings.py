"""The data.toml that comes with a set: `cd OUT && abaw align` runs as written.

Owns this text only.
"""

from __future__ import annotations

from abaw.stages.synth.layout import CHALLENGES, LIST_FOLDER, LISTS, ROOT, SAMPLE_FOLDER, SAMPLES


def data_toml(name: str = "synth") -> str:
    """Text of the configuration file."""
    tasks = ("au", "expr", "va")
    annotations = "\n".join(f'{task} = "{ROOT}/annotations/{CHALLENGES[task]}"' for task in tasks)
    tests = "\n".join(f'{task} = "{LIST_FOLDER}/{LISTS[task]}"' for task in tasks)
    encoders = "\n\n".join(
        f'[encoders.static-{task}]\nencoder = "finetuned"\nweights = "runs/finetune-{task}-vit_tiny_64"'
        for task in tasks
    )
    fusions = "\n\n".join(f'[fuse.{task}]\nvisual = ["features/visual-static-{task}"]' for task in tasks)
    samples = "\n\n".join(f'[submit.{task}]\nsample = "{SAMPLE_FOLDER}/{SAMPLES[task]}"' for task in tasks)
    return f"""# A synthetic set in the layout of Aff-Wild2, made by `abaw synth`. Every key: data.example.toml

[data]
name = "{name}"
videos = "{ROOT}/videos"
crops = "{ROOT}/cropped_aligned"

[data.annotations]
{annotations}

[data.test]
{tests}

[submit]
edition = "10"

{samples}

# Each task fuses the features of its own finetuned encoder. Sizes are for two CPU cores and a set like this one.
[extract_visual]
encoders = ["static-va", "static-expr", "static-au"]

{encoders}

# The published schedule of the fusion belongs to a set five hundred times larger.
[fuse]
stride = 50
steps = 150
warmup_steps = 50
cycle_steps = 0
batch_size = 16
lr = 1e-3
min_lr = 0.0
weight_kind = "pos_weight"
ccc_reduce = "mean"
mse_weight = 0.5
validate_every = 50

{fusions}
"""
