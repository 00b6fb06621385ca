"""Replays the golden pack in which it lies, with numpy, Pillow and the model's runtime; needs nothing else.

    python verify.py                      this program's own preprocessing and the model, stage by stage
    python verify.py --stages FOLDER      files that an app wrote, one for each image and stage (README.md)
    python verify.py --dump FOLDER        write such files, as an example
    python verify.py --fault bgr          make a mistake on purpose, to see that it is found

``--pack`` is the pack (default: the folder above this file), ``--model`` the model (default: the file whose pack it
is). Exit code 0: every stage passed; 1: a stage differs, which is named with the likely mistake.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .steps import (
    CONSTANTS,
    FAULTS,
    STAGES,
    Pack,
    PackError,
    Run,
    Stages,
    decide,
    iou,
    own_stages,
    prepare,
    stage_files,
    write_stages,
)

Manifest = Mapping[str, Any]  # of a pack, or of one of its images


@dataclass(frozen=True)
class Check:
    """What became of a stage: "passed", "differs" or "not given"; which images differ."""

    stage: str
    state: str
    text: str
    images: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """All stages, the first that differs, and what it looks like ("" where nothing is known)."""

    checks: tuple[Check, ...]
    first: str | None
    guess: str

    @property
    def passed(self) -> bool:
        """Whether a stage was compared and none differs."""
        return self.first is None and any(check.state == "passed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "first": self.first, "guess": self.guess, "stages": checks}

    def __str__(self) -> str:
        lines = [f"{check.stage:<11} {check.state:<10} {check.text}".rstrip() for check in self.checks]
        if self.first:
            likely = f"; it looks as if {self.guess}" if self.guess else ""
            lines.append(f"stage {self.first} differs{likely}")
        else:
            lines.append("every stage that was given passed" if self.passed else "no stage was given")
        return "\n".join(lines)


def difference(stage: str, expected: Any, actual: Any, manifest: Manifest, image: Manifest) -> tuple[float, str]:
    """How far a stage is off, in multiples of what is allowed (1 or less: it passes), and in words."""
    if stage == "decision":
        return _decision(expected, actual, manifest, image)
    if stage == "outputs":
        return _outputs(expected, actual, manifest, image)
    if actual.shape != expected.shape:
        return np.inf, f"{_by(actual)} instead of {_by(expected)}"
    if stage == "decoded":
        wrong = float((actual != expected).any(-1).mean())
        return (np.inf, f"{wrong:.1%} of the pixels differ") if wrong else (0.0, "identical")
    unit = np.ones(1, np.float32)
    if stage == "normalised":
        step = manifest["contract"]["preprocessing"]["steps"][-1]
        unit = np.array(step["std"], np.float32) / step["scale"]
        if manifest["contract"]["input"]["layout"].endswith("CHW"):
            unit = unit[:, None, None]
    off = np.abs(actual.astype(np.float32) - expected.astype(np.float32)) * unit
    allowed = manifest["tolerances"][stage]
    if not np.isfinite(off).all():
        return np.inf, "there are NaN or infinite values"
    mean, most = float(off.mean()), float(np.percentile(off, 99))
    excess = max(mean / allowed["mean"], most / allowed["p99"])
    limits = f"({allowed['mean']} and {allowed['p99']} are allowed)"
    return excess, f"{mean:.2f} grey levels off in the mean, 99% of the values within {most:.0f} {limits}"


def _by(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


def _outputs(
    expected: list[np.ndarray], actual: list[np.ndarray], manifest: Manifest, image: Manifest
) -> tuple[float, str]:
    form, allowed = manifest["form"], manifest["tolerances"]["outputs"]
    if form == "nms":
        boxes = [[*zip(o[2].tolist(), o[1].tolist(), o[0].tolist(), strict=True)] for o in (expected, actual)]
        return _boxes(boxes[0], boxes[1], manifest, image)
    worst, words = 0.0, list[str]()
    for described, one, other in zip(manifest["contract"]["outputs"], expected, actual, strict=True):
        limit = allowed[described["name"]]
        if one.shape != other.shape:
            return np.inf, f"{described['name']}: {_by(other)} instead of {_by(one)}"
        if form == "classes":
            share = float((one != other).mean())
            worst = max(worst, share / limit)
            words.append(f"{share:.2%} of the pixels have another class ({limit:.2%} allowed)")
            continue
        off = float(np.abs(one.astype(np.float32) - other).max())
        worst = max(worst, off / limit if np.isfinite(off) else np.inf)
        words.append(f"{described['name']} off by {off:.2g} ({limit:.2g} allowed)")
    return worst, ", ".join(words)


def _decision(
    expected: dict[str, Any], actual: dict[str, Any], manifest: Manifest, image: Manifest
) -> tuple[float, str]:
    if "label" in expected:
        if actual.get("label") == expected["label"]:
            return 0.0, "the same label"
        return np.inf, f"{actual.get('label')!r} instead of {expected['label']!r}"
    if "shares" in expected:
        one, other = expected["shares"], actual.get("shares", {})
        off = {name: abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other}}
        name, allowed = max(off, key=lambda name: off[name]), manifest["tolerances"]["decision"]["share"]
        return off[name] / allowed, f"the share of {name!r} is {off[name]:.2%} off ({allowed:.2%} allowed)"
    return _boxes(told(expected), told(actual), manifest, image)


def _boxes(expected: list, actual: list, manifest: Manifest, image: Manifest) -> tuple[float, str]:
    missing, more = unmatched(expected, actual, manifest["tolerances"]["decision"], manifest["selection"]["min_score"])
    wrong = max(0, missing - image["unstable"]) + max(0, more - image["unstable"])
    if not wrong:
        return 0.0, f"{len(expected)} boxes found again"
    return 1.0 + wrong, f"{missing} of {len(expected)} boxes have no partner, {more} others are there"


def unmatched(expected: list, actual: list, allowed: dict[str, float], least: float) -> tuple[int, int]:
    """How many of two sets of boxes (label, score, corners) have no partner, each; those barely told need none."""
    rest, missing, sure = list(actual), 0, least + allowed["score"]
    for label, score, box in expected:
        near = [other for other in rest if other[0] == label and abs(other[1] - score) <= allowed["score"]]
        overlaps = iou(np.array(box), np.array([other[2] for other in near])) if near else np.zeros(1)
        if overlaps.max() >= allowed["iou"]:
            rest.remove(near[int(overlaps.argmax())])
        elif score >= sure:
            missing += 1
    return missing, sum(other[1] >= sure for other in rest)


def told(decision: dict[str, Any]) -> list[tuple[str, float, list[float]]]:
    """The boxes of a decision as (label, score, corners)."""
    return [(box["label"], box["score"], box["box"]) for box in decision.get("boxes", ())]


def verify(pack: Pack, actual: Callable[[int], Stages], run: Run | None = None) -> Verdict:
    """Compare what ``actual`` gives for each image, whichever stages it has, with the pack.

    ``run``: the model, which helps to guess a mistake from outputs alone.
    """
    seen: dict[str, dict[int, tuple[float, str]]] = {}
    for number in range(len(pack.images)):
        expected, given = pack.expected(number), actual(number)
        for stage in (stage for stage in STAGES if stage in expected):
            of_stage = seen.setdefault(stage, {})
            if stage in given:
                of_stage[number] = difference(stage, expected[stage], given[stage], pack.manifest, pack.images[number])
    checks = tuple(_check(stage, found, len(pack.images)) for stage, found in seen.items())
    first = next((check for check in checks if check.state == "differs"), None)
    if first is None:
        return Verdict(checks, None, "")
    return Verdict(checks, first.stage, _guess(first, actual, pack, run))


def _check(stage: str, found: dict[int, tuple[float, str]], count: int) -> Check:
    if not found:
        return Check(stage, "not given", "")
    bad = tuple(number for number, (excess, _) in found.items() if not excess <= 1)  # NaN is bad
    worst = max(found, key=lambda number: found[number][0])
    if bad:
        return Check(stage, "differs", f"{len(bad)} of {len(found)} images; worst is {worst}: {found[worst][1]}", bad)
    given = f"{count} images" if len(found) == count else f"{len(found)} of {count} images"
    return Check(stage, "passed", f"{given}; worst: {found[worst][1]}")


def _guess(check: Check, actual: Callable[[int], Stages], pack: Pack, run: Run | None) -> str:
    """The mistake with which this program gets what was given, on the first images that differ; or ""."""
    scores: dict[str, list[float]] = {}
    for number in check.images[:3]:
        expected, given, image = pack.expected(number), actual(number)[check.stage], pack.images[number]
        if check.stage == "input" and given.size == 4 * expected["input"].size:
            return "float32 numbers are given to a file that takes uint8 pixels and normalises them itself"
        off = difference(check.stage, expected[check.stage], given, pack.manifest, image)[0]
        for words, variant in _variants(check.stage, expected, pack, number, run):
            excess = difference(check.stage, variant, given, pack.manifest, image)[0]
            scores.setdefault(words, []).append(excess if excess <= max(1, min(off / 4, 4)) else np.inf)
    likely = {words: max(found) for words, found in scores.items() if np.isfinite(max(found))}
    return min(likely, key=lambda words: likely[words]) if likely else ""


def _variants(stage: str, expected: Stages, pack: Pack, number: int, run: Run | None) -> Iterator[tuple[str, Any]]:
    """What a stage gives with each mistake, and the mistake in words."""
    pixels, contract = expected["decoded"], pack.contract
    if stage == "decision":
        for by, which in ((-1, "before"), (1, "after")):
            words = f"{FAULTS['labels']} (each is the one {which} the right one)"
            yield words, _relabelled(expected["decision"], pack.labels, by)
    for fault in ("bgr", "no-antialias", "crop-first", "mean", "layout"):
        made = prepare(pixels, contract, fault)
        if stage in made and not (stage == "normalised" and fault == "mean"):
            yield FAULTS[fault], made[stage]
        elif stage in ("outputs", "decision") and run is not None:
            if fault == "mean" and "input" in made:
                made["input"] = _as_if(made["normalised"], contract)
            outputs = run(made)
            yield FAULTS[fault], outputs if stage == "outputs" else decide(outputs, pack.manifest, pack.images[number])
    if stage == "normalised":
        for mean, std, scale in CONSTANTS:
            other = {"step": "normalise", "mean": mean, "std": std, "scale": scale}
            steps = [*contract["preprocessing"]["steps"][:-1], other]
            changed = {**contract, "preprocessing": {**contract["preprocessing"], "steps": steps}}
            used = f"mean {mean[0]:g}, ..., std {std[0]:g}, ... and scale {scale:.3g}"
            yield f"the normalisation has other constants: {used}", prepare(pixels, changed)["normalised"]
    if stage in ("resized", "cropped", "input"):
        resize = contract["preprocessing"]["steps"][0]
        for name in ("nearest", "box", "bilinear", "bicubic", "lanczos"):
            steps = [{**resize, "filter": name}, *contract["preprocessing"]["steps"][1:]]
            changed = {**contract, "preprocessing": {**contract["preprocessing"], "steps": steps}}
            if name != resize["filter"]:
                yield f"the resize is {name}, not {resize['filter']}", prepare(pixels, changed)[stage]


def _relabelled(decision: dict[str, Any], labels: list[str], by: int) -> dict[str, Any]:
    """A decision whose labels are those of the next class, or the one before."""

    def moved(name: str) -> str:
        return labels[(labels.index(name) + by) % len(labels)]

    if "label" in decision:
        return {**decision, "label": moved(decision["label"])}
    if "shares" in decision:
        return {"shares": {moved(name): share for name, share in decision["shares"].items()}}
    return {"boxes": [{**box, "label": moved(box["label"])} for box in decision["boxes"]]}


def _as_if(normalised: np.ndarray, contract: dict[str, Any]) -> np.ndarray:
    """The pixels that a model which normalises itself would have to see, for it to work with ``normalised``."""
    step = contract["preprocessing"]["steps"][-1]
    mean, std = (np.array(step[name], np.float32) for name in ("mean", "std"))
    if contract["input"]["layout"].endswith("CHW"):
        mean, std = mean[:, None, None], std[:, None, None]
    return ((normalised * std + mean) / step["scale"]).round().clip(0, 255).astype(np.uint8)


# The command line


def open_model(path: Path) -> Run:
    """The model in its runtime. Raises PackError for a format that this program cannot run."""

    def tensor(stages: Stages) -> np.ndarray:
        return np.ascontiguousarray(stages.get("input", stages["normalised"])[None])

    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0].name
        return lambda stages: [np.asarray(output) for output in session.run(None, {feed: tensor(stages)})]
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path))
        interpreter.allocate_tensors()

        def interpret(stages: Stages) -> list[np.ndarray]:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor(stages))
            interpreter.invoke()
            return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]

        return interpret
    if path.suffix == ".pte":
        import torch
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
        assert method is not None
        return lambda stages: [o.numpy().copy() for o in method.execute((torch.from_numpy(tensor(stages)),))]
    if path.suffix == ".xml":
        import openvino

        exact = {"INFERENCE_PRECISION_HINT": "f32"}  # left alone, it takes bfloat16 where the processor has it
        request = openvino.Core().compile_model(path, "CPU", exact).create_infer_request()

        def infer(stages: Stages) -> list[np.ndarray]:
            request.infer([tensor(stages)])
            return [request.get_output_tensor(n).data.copy() for n in range(len(request.model_outputs))]

        return infer
    raise PackError(f"this program cannot run {path.suffix} files; write the app's stages and give --stages")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Replay a golden pack and name the stage that differs.")
    parser.add_argument("--pack", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--model", type=Path, help="default: the file whose pack it is; 'none': only its input")
    parser.add_argument("--stages", type=Path, help="folder of an app's stage files")
    parser.add_argument("--dump", type=Path, help="folder to write stage files to")
    parser.add_argument("--fault", choices=FAULTS, help="a mistake to make on purpose")
    given = parser.parse_args()
    try:
        pack = Pack(given.pack)
        path = given.model or pack.folder.parent / pack.manifest["artifact"]["file"]
        run = None if str(given.model) == "none" else open_model(pack.checked(path))
        stages = stage_files(given.stages, pack) if given.stages else own_stages(pack, run, given.fault)
        if given.dump:
            write_stages(given.dump, pack, stages)
        verdict = verify(pack, stages, run)
    except (PackError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{verdict}\n")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
