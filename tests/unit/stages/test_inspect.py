"""`abaw inspect` on weights: what it says of each file, and the conversion to ours."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.checkpoint import load_checkpoint, read_header, save_checkpoint
from abaw.encoders.visual import Faces, VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode
from abaw.models.dialects import load_autoencoder, read_pretrained
from abaw.models.mae import MaskedAutoencoder
from abaw.models.systems import SYSTEMS, ModelOptions, architecture
from abaw.stages import inspect
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from tests.unit.faces_store import jpeg, make_faces, picture
from tests.unit.foreign_weights import TINY, encoder_only, finetuned, save, training_save, with_decoder
from tests.unit.models.tiny_models import tiny_classifier


def said(path: Path) -> dict[str, str]:
    return dict(inspect.run(path).lines)


def test_an_encoder_only_file_is_described(tmp_path: Path) -> None:
    summary = inspect.run(save(tmp_path / "mae_pretrain_vit_base.pth", {"model": encoder_only()}))
    lines = dict(summary.lines)
    assert summary.exit_code == ExitCode.OK
    assert lines["dialect"] == "mae-encoder: MAE, encoder only"
    assert lines["unwrapped"] == "model"
    assert lines["shape"] == "width 64, 2 blocks, 1 heads, patches of 8 in 32 pixels"
    assert lines["encoder"] == "30 matched, 0 missing, 0 unexpected, 0 of wrong shape"
    assert lines["decoder"] == "none"
    assert lines["class-token features"].startswith("yes, through the pretrained norm")
    assert lines["finetuning"] == "yes; pooling by mean starts with a new fc_norm"
    assert lines["continued pretraining"] == "yes, with a new decoder"
    assert lines["reconstructions"] == "no: it has no decoder"


def test_full_and_visualise_files_differ_in_what_they_can_show(tmp_path: Path) -> None:
    full = said(save(tmp_path / "mae_pretrain_vit_base_full.pth", {"model": with_decoder()}))
    drawn = said(save(tmp_path / "mae_visualize_vit_base.pth", {"model": with_decoder()}))
    assert full["continued pretraining"] == drawn["continued pretraining"] == "yes, with its decoder"
    assert full["reconstructions"].startswith("only with each patch's own mean and deviation put back")
    assert drawn["reconstructions"] == "yes, its decoder predicts pixels"


def test_a_finetuned_file_is_described(tmp_path: Path) -> None:
    lines = said(save(tmp_path / "mae_finetuned_vit_base.pth", {"model": finetuned()}))
    assert lines["class-token features"] == "no: it has no norm for the class token"
    assert lines["mean features"] == "yes, through its own fc_norm"
    assert lines["continued pretraining"] == "yes, with a new norm and a new decoder"
    assert lines["head"] == "head.weight, head.bias"


def test_a_training_save_lists_what_lies_beside_the_weights(tmp_path: Path) -> None:
    lines = said(save(tmp_path / "checkpoint-3.pth", training_save(with_decoder(), norm_pix_loss=True)))
    assert lines["left aside"] == "optimizer, epoch, scaler, args (beside the weights)"
    assert "target normalised pixels" in lines["shape"]


def test_what_does_not_match_is_counted_and_named_with_exit_code_4(tmp_path: Path) -> None:
    weights = encoder_only()
    del weights["blocks.1.attn.proj.bias"]
    weights["dist_token"] = torch.ones(1, 1, 64)
    weights["blocks.0.norm1.weight"] = torch.ones(32)
    summary = inspect.run(save(tmp_path / "w.pth", {"model": weights}))
    lines = dict(summary.lines)
    assert summary.exit_code == ExitCode.DATA
    assert lines["encoder"] == "28 matched, 1 missing, 1 unexpected, 1 of wrong shape"
    assert (lines["missing"], lines["unexpected"]) == ("blocks.1.attn.proj.bias", "dist_token")
    assert lines["wrong shape"] == "blocks.0.norm1.weight [32] for [64]"
    assert lines["finetuning"] == lines["mean features"] == "no: the encoder does not match whole"


def test_the_pca_of_vggish_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    lines = said(save(tmp_path / "pca.pth", {"pca_eigen_vectors": np.eye(2), "pca_means": np.zeros((2, 1))}))
    assert lines["dialect"].startswith("vggish-pca")
    assert "extract-audio" in lines["usable"]


def test_a_file_that_is_no_weights_file_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[data]\n")
    with pytest.raises(AbawError, match="is not a weights file"):
        inspect.run(tmp_path / "data.toml")


# -- models of ours ----------------------------------------------------------------------------------------------------
def write_model(path: Path, name: str, task: str) -> None:
    options = ModelOptions(pooling="mean" if name == "emae" else "cls", classifier=tiny_classifier())
    model = SYSTEMS[name].build(TINY, TASKS[task], options)
    shape = {"preset": "tiny", **architecture(name, TINY, options)}
    about = {"pooling": options.pooling, "normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    save_checkpoint(path, model.state_dict(), {"kind": name, "architecture": shape, "task": task, **about})


@pytest.mark.parametrize(
    ("name", "task", "model", "head"),
    [
        ("static", "va", "static", "heads.va.bias, heads.va.weight"),
        ("emma", "mtl", "emma (hidden 512, va_hidden 256)", "head.0.bias, head.0.weight, head.2.bias, head.2.weight"),
        ("cotex", "expr", "cotex (mask_ratio 0.75, views 2)", "heads.0.expr.bias, heads.0.expr.weight, heads.1."),
        (
            "emae",
            "au",
            "emae (after 0, operator concat, style crop, view eyes+mouth)",
            "heads.au.bias, heads.au.weight",
        ),
    ],
)
def test_a_finetuned_model_is_described_with_its_options_and_heads(tmp_path, name, task, model, head) -> None:
    path = tmp_path / "best.safetensors"
    write_model(path, name, task)
    summary = inspect.run(path, verify=True)
    lines = dict(summary.lines)
    assert summary.exit_code == ExitCode.OK
    assert lines["model"] == model
    assert lines["head"].startswith(head)
    assert lines["encoder"] == "30 matched, 0 missing, 0 unexpected, 0 of wrong shape"
    assert json.loads(lines["architecture"]) == {"preset": "tiny", **TINY.to_dict()}
    assert ("classifier" in lines) is (name == "emma")


def test_the_classifier_beside_emma_is_named_with_its_classes(tmp_path: Path) -> None:
    write_model(tmp_path / "best.safetensors", "emma", "mtl")
    lines = said(tmp_path / "best.safetensors")
    assert lines["classifier"] == f"brightness.pth (test, sha256 {'0' * 64}): Neutral, Anger, Fear, Surprise"
    assert "beside its classifier" in lines["used for"]


# -- conversion --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["encoder", "full", "finetuned", "half precision"])
def test_a_converted_file_is_read_as_the_original_was(tmp_path: Path, kind: str) -> None:
    weights = {"encoder": encoder_only, "finetuned": finetuned}.get(kind, with_decoder)()
    if kind == "half precision":
        weights = {name: value.half() for name, value in weights.items()}
    path = save(tmp_path / "mae_face_x.pth", {"model": weights})
    out = tmp_path / "ours.safetensors"
    inspect.run(path, convert=out, trained_on=["none"])
    before, after = read_pretrained(path), read_pretrained(out)
    assert (after.dialect, after.preset) == ("abaw", before.preset)
    for old, new in ((before.encoder, after.encoder), (before.decoder, after.decoder)):
        assert old.keys() == new.keys()
        assert all(new[name].dtype == torch.float32 and torch.equal(new[name], old[name].float()) for name in old)
    header = read_header(out)
    assert (header["kind"], header["dialect"]) == ("mae", "mae-face")
    assert header["source"] == {"file": "mae_face_x.pth", "sha256": before.sha256}
    assert header["normalisation"]["mean"] == [0.49895, 0.41044, 0.36561]
    assert header["recipe"]["fingerprint"] == "unknown"
    assert header["trained_on"][0]["labels"] == "none"
    assert "converted from" in dict(inspect.run(out).lines)


@pytest.mark.parametrize("weights", [encoder_only, finetuned])
def test_features_of_the_converted_file_equal_those_of_the_original(tmp_path: Path, weights) -> None:
    path, out = save(tmp_path / "w.pth", {"model": weights()}), tmp_path / "ours.safetensors"
    inspect.run(path, convert=out)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    faces = Faces(images, np.zeros((2, 5, 2), np.float32), np.zeros((2, 4), np.float32))
    first, second = (build_visual_encoder("mae", VisualOptions(weights=str(one))).encode(faces) for one in (path, out))
    assert np.array_equal(first, second)


def test_pretraining_continues_from_a_converted_file(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    inspect.run(save(tmp_path / "w.pth", {"model": with_decoder()}), convert=out)
    loaded, _ = load_checkpoint(out, kind="mae")
    model = MaskedAutoencoder(TINY)
    assert load_autoencoder(model, read_pretrained(out), where="x").fresh == []
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path, out = save(tmp_path / "w.pth", {"model": encoder_only()}), tmp_path / "ours.safetensors"
    out.write_text("mine")
    with pytest.raises(AbawError, match="exists"):
        inspect.run(path, convert=out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("kind", ["not whole", "another network", "ours", "name"])
def test_unusable_files_and_names_are_refused(tmp_path: Path, kind: str) -> None:
    weights, out = with_decoder(), tmp_path / ("ours.safetensors" if kind != "name" else "ours.pth")
    if kind == "not whole":
        del weights["decoder_pred.bias"]
    content = {"pca_eigen_vectors": np.eye(2), "pca_means": np.eye(2)} if kind == "another network" else weights
    path = save(tmp_path / "w.pth", content)
    if kind == "ours":
        inspect.run(path, convert=tmp_path / "first.safetensors")
        path = tmp_path / "first.safetensors"
    message = {
        "not whole": "do not all match",
        "another network": "holds no encoder of ours",
        "ours": "is a checkpoint of this program already",
        "name": "is no name for a checkpoint",
    }
    with pytest.raises(AbawError, match=message[kind]):
        inspect.run(path, convert=out)
    assert not out.exists()


def test_our_own_checkpoints_are_described_without_torch_and_compared_with_verify(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    inspect.run(save(tmp_path / "w.pth", {"model": encoder_only()}), convert=out)
    code = f"""
import sys, pathlib
from abaw.stages import inspect
from abaw.store import ArraySpec, FeatureStore, StoreHeader
lines = dict(inspect.run(pathlib.Path({str(out)!r})).lines)
assert lines["used for"].startswith("frozen features") and "encoder" not in lines
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert dict(inspect.run(out, verify=True).lines)["encoder"].startswith("30 matched, 0 missing")


def test_a_crop_that_was_overwritten_is_found_when_all_is_read(tmp_path: Path) -> None:
    whole = jpeg(picture(1))
    make_faces(tmp_path / "faces", {"a": [picture(0), whole[: len(whole) // 2] + bytes(len(whole) // 2)], "b": [whole]})
    summary = inspect.run(tmp_path / "faces", verify=True)
    assert [failure.track_id for failure in summary.failed] == ["a"]
    assert "1 crops are cut off or overwritten, the first in row 1" in summary.failed[0].message


def test_an_onnx_graph_is_named_with_its_use(tmp_path: Path) -> None:
    (tmp_path / "r18.onnx").write_bytes(b"graph")
    assert said(tmp_path / "r18.onnx")["used for"].startswith("EMMA's frozen classifier")


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A predictions store of two tracks, seven rows, one of them without a score."""
    arrays = {"scores/va": ArraySpec("float32", (2,))}
    header = StoreHeader("predictions", "p", arrays, {"run": "x"}, label_order={"va": ["valence", "arousal"]})
    store = FeatureStore.create(tmp_path / "p", header)
    store.write("v1", {"valid": np.ones(4, bool), "scores/va": np.zeros((4, 2), np.float32)}, fps=25)
    store.write("t1", {"valid": np.array([1, 0, 1], bool), "scores/va": np.zeros((3, 2), np.float32)}, fps=25)
    return store.path


def test_a_store_is_described_and_verified(scores: Path) -> None:
    lines = [value for _, value in inspect.run(scores, verify=True).lines]
    assert "2, 7 rows, 6 of them valid" in lines
    assert "2 of 2 tracks read whole" in lines


def test_a_damaged_track_is_reported_and_the_others_are_read(scores: Path) -> None:
    (scores / "t1.h5").write_bytes((scores / "t1.h5").read_bytes()[:1000])
    summary = inspect.run(scores, verify=True)
    assert summary.exit_code == ExitCode.PARTIAL
    assert [failure.track_id for failure in summary.failed] == ["t1"]
    assert "1 of 2 tracks read whole" in [value for _, value in summary.lines]


def test_one_track_is_described(scores: Path) -> None:
    assert "float32[3, 2]" in " ".join(value for _, value in inspect.run(scores / "t1.h5").lines)
