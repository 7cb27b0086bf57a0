"""Detection and recognition with the models of an insightface pack.

The only module that imports `insightface`, which would download weights on its own: the pack's files are looked at
first, and what is missing is said. The weights of the published packs are for non-commercial research only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

from abaw.errors import AbawError, ExitCode
from abaw.media.faces import FOLLOWS_NONE, Detections, DetectorOptions, no_faces
from abaw.weights import known_sha256, readable

SCORE = 0.5  # the package's threshold of detection
STRIDE = 32  # of the coarsest level: the network's input is a multiple of it
COARSE_PX = 128  # second look, where faces fill the picture; the package's smaller size
NUM_POINT_OUTPUTS = (9, 15)  # scores, boxes and landmarks on 3 or 5 levels
CROP_PX = 112

# The package's own threshold for "same person" with these embeddings (insightface 2.1, gui/core/constants.py). Faces
# of five other people reached 0.35 at most with w600k_r50 (py-feat, pull request 284).
SAME = 0.4

UNREADABLE_FIX = 'make the files of the pack readable, or name another: align.pack = "FOLDER"'
PACK_FIX = """\
get the pack buffalo_l (github.com/deepinsight/insightface, release model-zoo; its weights are for non-commercial
research only), unpack it and set align.pack = "models/buffalo_l", or use detector = "mtcnn\""""


class PackFiles(NamedTuple):
    """The model files of a pack that are used; None where it has none of the kind."""

    detection: Path | None
    recognition: Path | None


def pack_files(pack: Path | None) -> PackFiles:
    """The detection and the recognition model of a pack, told from their inputs and outputs as the package does.

    Raises AbawError (missing) where the folder, the package, or every model is missing, or a file is no model or may
    not be read.
    """
    if pack is None or not _is_folder(pack):
        raise _missing(f"the insightface model pack is missing ({pack or 'none given'})")
    _require_package()
    with readable(pack, fix=UNREADABLE_FIX):
        files = sorted(file for file in pack.iterdir() if file.suffix == ".onnx")
    if not files:
        raise _missing(f"the insightface model pack {pack} holds no .onnx file")
    kinds: dict[str, Path] = {}
    for file in files:
        with readable(file, fix=UNREADABLE_FIX):
            kind = _kind(file, file.stat().st_mtime_ns)
        kinds.setdefault(kind, file)
    return PackFiles(kinds.get("detection"), kinds.get("recognition"))


def _is_folder(pack: Path) -> bool:
    with readable(pack, fix=UNREADABLE_FIX):
        return pack.is_dir()


def check_detector(options: DetectorOptions) -> None:
    """Raise AbawError (missing) for what the detector would lack: pack, package, device. Loads no weights."""
    _detection_file(options)
    check_package(options)


def check_package(options: DetectorOptions) -> None:
    """Raise AbawError (missing) where the package or the device is not there."""
    _providers(options.device)
    with _quiet():
        _insightface("app")


def detection_settings(options: DetectorOptions) -> dict[str, Any]:
    """What changes the detector's findings; raises as `pack_files`, and where the pack has no detection model."""
    return {
        "short_side_px": options.short_side_px,
        "coarse_px": COARSE_PX,
        "score": SCORE,
        "weights_sha256": known_sha256(_detection_file(options)),
    }


def recognition_settings(pack: Path) -> dict[str, Any] | None:
    """What changes the embeddings; None where the pack has no recognition model."""
    file = pack_files(pack).recognition
    return None if file is None else {"name": "arcface", "same": SAME, "weights_sha256": known_sha256(file)}


class InsightfaceDetector:
    """SCRFD or RetinaFace of a pack, through the package's `FaceAnalysis`."""

    follows = False

    def __init__(self, options: DetectorOptions) -> None:
        self.short_side_px = options.short_side_px
        file = _detection_file(options)
        providers = _providers(options.device)
        with _quiet(), _model_errors(file.parent):  # FaceAnalysis opens every model, to see what it is
            app = _insightface("app").FaceAnalysis(
                str(file.parent.resolve()),
                allowed_modules=["detection"],
                providers=providers,
                sess_options=_one_thread(),
                static_shape_sessions=False,  # else one more network for every size of picture
            )
            app.prepare(ctx_id=0, det_thresh=SCORE, det_size=(640, 640))
        self._model = app.det_model
        if Path(self._model.model_file).resolve() != file.resolve():
            raise _missing(f"the insightface model pack holds several detection models, {file.name} among them")
        _require_provider(self._model.session, providers)
        self._fixed = getattr(self._model, "static_input_size", None) is not None

    def detect(self, image: np.ndarray) -> Detections:
        """Faces of an RGB picture uint8 [H, W, 3], the best score first."""
        picture = np.ascontiguousarray(image[..., ::-1])  # the package takes BGR
        if self._fixed:
            return _detections(*self._model.detect(picture))
        below, right = (-size % STRIDE for size in picture.shape[:2])
        padded = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT)
        faces = _detections(*self._model.detect(padded, input_size=padded.shape[1::-1]))
        if len(faces) == 0 and max(picture.shape) > COARSE_PX:
            faces = _detections(*self._model.detect(picture, input_size=(COARSE_PX, COARSE_PX)))
        return faces

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        raise TypeError(FOLLOWS_NONE)


class ArcfaceEmbedder:
    """The recognition model of a pack, as an embedder (see `abaw.media.identity`)."""

    name = "arcface"
    same = SAME
    decides = True

    def __init__(self, options: DetectorOptions) -> None:
        file = pack_files(options.pack).recognition
        if file is None:
            raise _missing(f"the insightface model pack {options.pack} holds no recognition model")
        providers = _providers(options.device)
        with _quiet(), _model_errors(file):
            self._model = _insightface("model_zoo").get_model(
                str(file.resolve()), providers=providers, sess_options=_one_thread()
            )
            self._dim = self._model.get_feat([np.zeros((CROP_PX, CROP_PX, 3), np.uint8)]).shape[1]
        _require_provider(self._model.session, providers)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """RGB crops uint8 [N, 112, 112, 3] -> unit vectors float32 [N, D]."""
        vectors = np.zeros((len(crops), self._dim), dtype=np.float32)
        for row, crop in enumerate(crops):  # one by one: a vector does not depend on its neighbours
            vector = self._model.get_feat([np.ascontiguousarray(crop[..., ::-1])])[0]
            vectors[row] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vectors


def _detections(found: np.ndarray, points: np.ndarray) -> Detections:
    if len(found) == 0:
        return no_faces()
    rows = np.asarray(found, dtype=np.float32)  # x0, y0, x1, y1, score
    return Detections(rows[:, :4], np.asarray(points, dtype=np.float32), rows[:, 4])


def _detection_file(options: DetectorOptions) -> Path:
    file = pack_files(options.pack).detection
    if file is None:
        raise _missing(f"the insightface model pack {options.pack} holds no detection model with landmarks")
    return file


@lru_cache(maxsize=64)
def _kind(file: Path, mtime_ns: int) -> str:
    """ "detection", "recognition" or "other", by the rule of the package's model router."""
    import onnx  # comes with insightface
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except DecodeError as error:
        raise _damaged(file) from error
    if not graph.output:  # what an empty file reads as
        raise _damaged(file)
    if len(graph.output) >= 5:
        return "detection" if len(graph.output) in NUM_POINT_OUTPUTS else "other"
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        return "other"
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    return "recognition" if shape[2:] == [CROP_PX, CROP_PX] else "other"


def _insightface(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"insightface.{name}")
    except ImportError as error:
        raise _no_package(str(error)) from error


def _require_package() -> None:
    for name in ("insightface", "onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise _no_package(f"no module named {name}")


def _providers(device: str) -> list[Any]:
    """Providers of onnxruntime for a device of torch's naming; AbawError where it has none, never silently the CPU."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    if kind == "cuda" and "CUDAExecutionProvider" in offered:
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise _no_device(device, f"onnxruntime offers {', '.join(offered)}")


def _require_provider(session: Any, providers: list[Any]) -> None:
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise _no_device("cuda", "onnxruntime could not start its CUDA provider")


def _one_thread() -> Any:
    """Options of a session on one thread: workers are processes, and fight over cores otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the package prints, logs and warns about while it loads."""
    log = logging.getLogger("insightface")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _model_errors(place: Path) -> Iterator[None]:
    """Onnxruntime's errors about a model file, as the user's: the pack is damaged or not one of insightface."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NotImplemented")
    try:
        yield
    except tuple(getattr(state, name) for name in names) as error:
        raise _damaged(place, str(error)) from error


def _missing(what: str) -> AbawError:
    return AbawError(what, where="[align] pack", fix=PACK_FIX, code=ExitCode.MISSING)


def _damaged(place: Path, why: str = "it is damaged") -> AbawError:
    return AbawError(
        f"a model of the insightface pack could not be loaded: {why}",
        where=str(place),
        fix="unpack the pack again, and keep nothing else in its folder",
        code=ExitCode.MISSING,
    )


def _no_package(why: str) -> AbawError:
    return AbawError(
        f"the package insightface cannot be used ({why})",
        where='[align] detector = "insightface" or pack',
        fix='pip install "insightface>=2.0" onnxruntime',
        code=ExitCode.MISSING,
    )


def _no_device(device: str, why: str) -> AbawError:
    return AbawError(
        f"insightface cannot run on {device}: {why}",
        where="run.device",
        fix='pip uninstall onnxruntime && pip install onnxruntime-gpu, or device = "cpu"',
        code=ExitCode.MISSING,
    )
