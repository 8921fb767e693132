"""Trajectories on one web page that needs nothing beside it: a look at a data set."""

import base64
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import jinja2

from data_pipelines.plan_sketch.job import LEDGER
from data_pipelines.plan_sketch.shards import trajectories, with_images
from staged.jobs.records import Records, is_older
from staged.shards import read_manifest, read_shards
from staged.trajectory import Inspection, Plan, Refinement, Sketch, Stop, Trajectory

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
       padding: 0 1rem; color: #1c1c1c; background: #fafafa }
article { background: #fff; border: 1px solid #ddd; border-radius: 8px; padding: 1rem;
          margin: 0 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin: 0 0 .6rem }
ol { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; margin: 0; padding: 0 }
li { flex: 0 1 11rem; border-left: 3px solid #bbb; padding-left: .5rem }
li.plan { border-color: #4a7fc9 } li.sketch { border-color: #3f9d62 }
li.inspection { border-color: #b98900 } li.refinement { border-color: #b5542d }
li.unsupervised { opacity: .6 }
img { width: 144px; image-rendering: pixelated; border-radius: 4px; display: block }
small { color: #555 } .revise, .rejected, .failed { color: #a8320a } .accept { color: #2a6a3c }
table { border-collapse: collapse } td { padding: .1rem .8rem .1rem 0 }
</style>
<h1>{{ title }}</h1>
<table>{% for name, number in counts %}<tr><td>{{ name }}<td>{{ number }}{% endfor %}</table>
{% for heading, items in groups if items %}
<h1>{{ heading }}</h1>
{% for item in items %}
<article><h2>{{ item.prompt }}</h2>
<p><small>{{ item.note }}</small></p>
<ol>{% for step in item.steps %}
<li class="{{ step.kind }}{{ '' if step.loss else ' unsupervised' }}">
<small>{{ step.title }}{{ '' if step.loss else ', not supervised' }}</small>
{% if step.delta %}<div><small>{{ step.delta }}</small></div>{% endif %}
{% if step.image %}<img alt="sketch" src="{{ step.image }}">{% endif %}
{% for line in step.lines %}<div class="{{ step.verdict }}">{{ line }}</div>{% endfor %}
</li>{% endfor %}</ol></article>
{% endfor %}{% endfor %}
</html>
"""


def write_preview(folder: Path, path: Path, *, number: int) -> int:
    """Write the page of a data set: samples of its shards, and of what its job rejected.

    Args:
        folder: The data set.
        path: The page.
        number: Most accepted samples, and most others.

    Returns:
        Trajectories on the page.

    Raises:
        FileNotFoundError: no finished data set is there.
    """
    if number < 1:
        raise ValueError(f"number is {number}; expected at least 1")
    manifest = read_manifest(folder)
    samples = [
        _item(sample.trajectory, f"{sample.key} · {sample.trajectory.task or 'no task'}")
        for sample in islice(read_shards(folder), number)
    ]
    others = list(islice(_others(folder, manifest.fingerprints), number))
    counts: Counter[str] = Counter()
    for stage, rows in manifest.acceptance.items():
        for reason, amount in rows.items():
            counts[f"{stage}: {reason}"] += amount
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    html = page.render(
        title=manifest.title,
        counts=sorted(counts.items()),
        groups=[("Samples", samples), ("Rejected and failed", others)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return len(samples) + len(others)


def _others(folder: Path, fingerprints: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """What the job ended without a sample; nothing where no ledger that we read is there."""
    if not (folder / LEDGER).is_dir() or is_older(folder / LEDGER):
        return
    records = Records(folder / LEDGER)
    if records.fingerprints != set(fingerprints):
        return
    for unit, result, trajectory in trajectories(records):
        if result.status != "accepted":
            note = f"{unit:08d} · {result.status} at {result.stage}: {result.reason}"
            yield _item(with_images(trajectory, records), note)


def _item(trajectory: Trajectory, note: str) -> dict[str, Any]:
    deltas = iter(trajectory.provenance.get("deltas", []))
    mistakes = trajectory.provenance.get("mistakes")
    if mistakes:
        note += f" · deliberate mistakes: {', '.join(mistakes)}"
    steps: list[dict[str, Any]] = []
    for step in trajectory.steps:
        kind = type(step).__name__.lower()
        shown: dict[str, Any] = {"kind": kind, "title": kind, "loss": step.loss, "lines": []}
        match step:
            case Plan():
                shown["lines"] = [step.instruction, f"→ {step.description}"]
                if step.loss:
                    shown["delta"] = next(deltas, "")
            case Sketch():
                png = step.image.png or b""
                data = base64.b64encode(png).decode("ascii")
                shown["image"] = f"data:image/png;base64,{data}"
            case Inspection():
                shown["title"] = f"{step.target} inspected: {step.verdict}"
                shown["lines"], shown["verdict"] = [step.critique], step.verdict
            case Refinement():
                shown["lines"] = [step.instruction]
            case Stop():
                shown["title"] = "stop"
        steps.append(shown)
    return {"prompt": trajectory.prompt, "note": note, "steps": steps}
