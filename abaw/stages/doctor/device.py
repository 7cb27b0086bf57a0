"""What the probe of torch found: does it import, which device a run takes, and can that device compute?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from abaw.errors import ExitCode
from abaw.stages.doctor.child import Outcome
from abaw.stages.doctor.findings import Finding, good, note, problem

GB = 1e9
INSTALL = 'pip install "torch>=2.11,<2.14" "torchvision>=0.26,<0.29" "torchaudio>=2.11,<2.12"'
USE_CPU = 'compute on the CPU meanwhile: --device cpu, or device = "cpu" in [run]'
DRIVER = "compare the driver (`nvidia-smi`) with the CUDA version of torch; restart the machine where it hangs"
NVIDIA = Path("/dev/nvidia0")


def findings(outcome: Outcome, asked: str, *, nvidia: Path = NVIDIA) -> Iterator[Finding]:
    """One finding about torch and, where that imports, one about the device."""
    if "cpu" not in outcome or outcome["cpu"]["wrong"]:
        yield _no_torch(outcome)
        return
    version = outcome["imported"]["version"]
    torchaudio = outcome.steps.get("torchaudio", {})
    if "error" in torchaudio:
        text = f"{version} computes, but torchaudio cannot be imported: {torchaudio['error']}"
        yield problem("torch", text, fix=INSTALL, code=ExitCode.MISSING, version=version)
    else:
        yield good("torch", f"{version} imports and computes on the CPU", version=version)
    yield _device(outcome, asked, nvidia=nvidia)


def _no_torch(outcome: Outcome) -> Finding:
    if "imported" not in outcome:
        text = f"it cannot be imported: {outcome.failure}"
    elif outcome.failure:
        text = f"{outcome['imported']['version']} imports, but computing on the CPU failed: {outcome.failure}"
    else:
        text = f"{outcome['imported']['version']} computes wrongly on the CPU: {', '.join(outcome['cpu']['wrong'])}"
    return problem("torch", text, fix=f"install it again: {INSTALL}", code=ExitCode.MISSING)


def _device(outcome: Outcome, asked: str, *, nvidia: Path) -> Finding:
    said = f'run.device = "{asked}"'
    if "refused" in outcome:
        refusal = outcome["refused"]
        text = f"{said}: {refusal['what']}"
        return problem("device", text, fix=refusal["fix"], code=ExitCode(refusal["code"]))
    if "computed" not in outcome:
        return _unusable(outcome, asked)
    done, device = outcome["computed"], outcome["chosen"]["device"]
    if done["wrong"]:
        text = f"{said}: {device} computes wrongly: {', '.join(done['wrong'])}"
        return problem("device", text, fix=f"{USE_CPU}\n{DRIVER}", code=ExitCode.MISSING)
    text = f"{said} takes {_named(outcome, device)}; auto precision is {done['precision']}"
    if asked != "auto":
        text = f"{said} works on {_named(outcome, device)}; auto would take {outcome['auto']['device']}"
        text += f"; auto precision is {done['precision']}"
    data = {"device": device, "auto": outcome["auto"]["device"], "precision": done["precision"]}
    if asked == "auto" and device == "cpu" and nvidia.exists():
        build = outcome["imported"]["cuda_build"]
        fix = f"install a torch that is built for CUDA: {INSTALL}" if build is None else DRIVER
        return note("device", f"{text}, although this machine has an NVIDIA device", fix, **data)
    return good("device", text, **data)


def _unusable(outcome: Outcome, asked: str) -> Finding:
    """The probe ended early; by its last step it is known where."""
    while_doing = "the driver was asked for its devices"
    if "chosen" in outcome:
        while_doing = f"{_named(outcome, outcome['chosen']['device'])} was to compute"
    text = f'run.device = "{asked}": while {while_doing}, the trial process {outcome.failure or "ended"}'
    if asked == "cpu":  # which was tried before
        return note("device", f"{text}; the CPU computes", DRIVER, device="cpu")
    return problem("device", text, fix=f"{USE_CPU}\n{DRIVER}", code=ExitCode.MISSING)


def _named(outcome: Outcome, device: str) -> str:
    if device == "cpu":
        return "cpu" if outcome["cuda"]["names"] else "cpu (no CUDA device)"
    name = outcome["cuda"]["names"][int(device.partition(":")[2] or 0)]
    sizes = outcome.steps.get("memory")
    room = f", {sizes['free'] / GB:.0f} of {sizes['total'] / GB:.0f} GB free" if sizes else ""
    return f"{device} ({name}{room})"
