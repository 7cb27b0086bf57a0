"""The output folder: can a store live there, and will what this configuration makes fit?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from abaw.config import AudioEncoderConfig, Config
from abaw.config.encoders import registry_name
from abaw.data.collection import list_shards
from abaw.data.manifest import Track
from abaw.errors import AbawError, ExitCode
from abaw.stages.doctor import child
from abaw.stages.doctor.child import Outcome
from abaw.stages.doctor.findings import Finding, good, note, problem
from abaw.stages.doctor.machine import nearest
from abaw.stages.doctor.weights import Table, table_of

GB = 1e9
TRIED = 16  # recordings whose length stands for the others
HEADERS_LIMIT_S = 30.0
# A face of 112 px at JPEG quality 95 takes 7 to 8 kB on clean pictures and 13 kB on noisy ones (measured).
FACE_BYTES, FACE_SIDE_PX = 12_000, 112
OTHER_BYTES = 120  # of a row beside its picture or its features
HALF = 2  # bytes of a float16
# Columns of a feature, where the encoder's name says it; the rest depends on files, and UNKNOWN_WIDTH stands for it.
VIT_WIDTHS = {"vit_tiny_64": 192, "vit_small_112": 384, "vit_base_224": 768, "vit_large_224": 1024}
WIDTHS = {"dan": 512, "iresnet": 512, "landmarks": 14, "vggish": 128}
SPEECH_WIDTHS = {"base": 768, "base_plus": 768}
UNKNOWN_WIDTH = 1024
NETWORK = ("nfs", "cifs", "smb", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "fuse.", "davfs")


def folder(outcome: Outcome, output: Path) -> Iterator[Finding]:
    """What the probe of the output folder found."""
    kind = file_system(output)
    text = f"{output}" if output.is_dir() else f"{output} (to be made)"
    text += f", on {kind}" if kind else ""
    data = {"path": str(output), "file_system": kind}
    if "refused" in outcome or "read" not in outcome:
        why = outcome["refused"]["why"] if "refused" in outcome else f"the trial process {outcome.failure}"
        fix = 'choose a folder that can be written: output = "FOLDER" in [run]; network folders: check the mount'
        yield problem("output", f"{text}: no store can be kept there: {why}", fix=fix, code=ExitCode.DATA, **data)
        return
    lacking = [name for name in ("locks", "hdf5 locks") if name not in outcome]
    if lacking:
        text += f": stores work, but it knows no {' and no '.join(lacking)}"
        yield note("output", text, "let one process at a time write to a store, or use a local disk", **data)
    elif kind.startswith(NETWORK):
        text += ": stores work; reading windows at random in training is slower than from a local disk"
        yield note("output", text, 'for training: in_memory = true in [fuse], or output = "LOCAL FOLDER"', **data)
    else:
        yield good("output", f"{text}: a store was written, read, replaced and locked", **data)


def file_system(path: Path, mounts: str | None = None) -> str:
    """Type of the file system that a path is on, by the system's table of mounts; "" where it does not say."""
    if mounts is None:
        table = Path("/proc/self/mounts")
        mounts = table.read_text(errors="replace") if table.is_file() else ""
    place, best, kind = nearest(path).resolve(), -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if (point == place or point in place.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


# -- room --------------------------------------------------------------------------------------------------------------
def disk(cfg: Config, media: Sequence[Track]) -> Iterator[Finding]:
    """Free room against what faces and features of the recordings will take, less what is there already."""
    free = shutil.disk_usage(nearest(cfg.run.output)).free
    rows = count_rows(cfg, media)
    if rows is None:
        yield good("disk", f"{free / GB:.1f} GB free; what is needed was not estimated without recordings", free=free)
        return
    by_store = needed(cfg, rows, done=_done(cfg, len(media)))
    total = sum(by_store.values())
    shown = ", ".join(f"{name} {size / GB:.1f}" for name, size in by_store.items() if size >= 0.05 * GB)
    text = f"{free / GB:.1f} GB free; about {total / GB:.1f} GB more for {rows:.3g} rows" + (
        f" ({shown})" * bool(shown)
    )
    numbers = {"free": free, "needed": by_store, "rows": rows}
    if total > free:
        fix = 'free some, or put the output elsewhere: output = "FOLDER" in [run]; a smaller align.size_px takes less'
        yield problem("disk", text, fix=fix, code=ExitCode.DATA, **numbers)
    elif total > 0.8 * free:
        yield note("disk", f"{text}: little is left for runs and predictions", "free some more", **numbers)
    else:
        yield good("disk", text, **numbers)


def needed(cfg: Config, rows: int, *, done: dict[str, float]) -> dict[str, float]:
    """Bytes that each store still takes. ``done``: share of a store's rows that are there."""
    face = FACE_BYTES * (cfg.align.size_px / FACE_SIDE_PX) ** 2 + OTHER_BYTES
    sizes = {"faces": rows * face}
    for kind, names in (("visual", cfg.extract_visual.encoders), ("audio", cfg.extract_audio.encoders)):
        for name in dict.fromkeys(names):
            table = table_of(cfg, name)
            if table is not None and not (kind == "audio" and cfg.data.kind != "videos"):
                sizes[f"{kind}-{name}"] = rows * (HALF * width(cfg, table) + OTHER_BYTES)
    return {store: size * (1 - done.get(store, 0.0)) for store, size in sizes.items()}


def width(cfg: Config, table: Table) -> int:
    """Columns of an encoder's features, as far as its table says."""
    name = registry_name(table.encoder)
    if name in ("mae", "finetuned", "emma", "emae"):
        preset = cfg.pretrain.preset if name == "mae" else cfg.finetune.preset
        return VIT_WIDTHS.get(preset, UNKNOWN_WIDTH)
    if isinstance(table, AudioEncoderConfig):
        own = {"logmel": table.num_mels, "mfcc": table.num_coefficients}
        return own.get(name) or WIDTHS.get(name) or SPEECH_WIDTHS.get(table.model, UNKNOWN_WIDTH)
    return WIDTHS.get(name, UNKNOWN_WIDTH)


def _done(cfg: Config, num_tracks: int) -> dict[str, float]:
    """Share of the tracks that each store has already."""
    stores = {"faces": cfg.faces_store}
    for kind, names in (("visual", cfg.extract_visual.encoders), ("audio", cfg.extract_audio.encoders)):
        stores |= {f"{kind}-{name}": cfg.features_store(kind, name) for name in names}
    return {name: min(1.0, len(list(path.glob("*.h5"))) / max(num_tracks, 1)) for name, path in stores.items()}


def count_rows(cfg: Config, media: Sequence[Track]) -> int | None:
    """Rows of all tracks, from a few of them spread over the list; exact for images. None where nothing says."""
    if cfg.data.kind == "images" and cfg.data.images is not None:
        try:
            return sum(map(len, list_shards(cfg.data.images)))
        except AbawError:
            return None
    paths = [track.video for track in media if track.video is not None]
    tried = paths[:: max(1, -(-len(paths) // TRIED))]
    if not tried:
        return None
    if cfg.data.kind == "crops":
        counts = [sum(1 for _ in path.iterdir()) for path in tried]
    else:
        outcome = child.start("probe_headers", *map(str, tried), limit_s=HEADERS_LIMIT_S).result()
        counts = list(outcome["frames"]["found"].values()) if "frames" in outcome else []
    return round(sum(counts) / len(counts) * len(paths)) if counts else None
