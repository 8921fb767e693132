"""A folder takes one job: what else is asked of it is refused, and what it says of itself stays."""

from dataclasses import replace
from pathlib import Path

from data_pipelines.plan_sketch.settings import PlanSketchSettings
from staged.jobs.records import Records
from staged.settings import changes, load, save_resolved
from staged.shards.folder import INDEX

SETTINGS = "settings.yaml"


def settled(settings: PlanSketchSettings, folder: Path) -> PlanSketchSettings:
    """Say what `auto` stands for where a pipeline draws; a job that goes on keeps its precision.

    Raises:
        ValueError: There is no such device, or the folder's settings cannot be read.
    """
    if settings.drawing.editor is None:
        return settings
    from staged.devices import settle  # torch is loaded only where it draws

    begun = None
    if (path := folder / SETTINGS).is_file():
        before = load(PlanSketchSettings, path).drawing.editor
        begun = before.dtype if before else None
    editor = settle(settings.drawing.editor, begun=begun)
    return replace(settings, drawing=replace(settings.drawing, editor=editor))


def refuse_other_settings(settings: PlanSketchSettings, folder: Path) -> None:
    """Compare with what the folder was begun with.

    Raises:
        ValueError: Something that decides samples is another; names each.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return
    before = load(PlanSketchSettings, path)
    if changed := changes(before.deciding, settings.deciding):
        raise ValueError(
            f"{folder} holds a data set of other settings: {'; '.join(changed)}. Write to another "
            f"folder, or go on with the settings in {path}"
        )


def record_settings(settings: PlanSketchSettings, folder: Path, records: Records) -> None:
    """Write the settings of a job that goes on or grows; those of a finished one stand.

    Raises:
        ValueError: Fewer prompts are asked for than there are results of.
    """
    built = max(records.finished(round_=0), default=-1) + 1
    if settings.prompts.count < built:
        raise ValueError(
            f"prompts.count is {settings.prompts.count}, but {folder} has results up to prompt "
            f"{built}: give at least {built}, or another folder"
        )
    path = folder / SETTINGS
    if path.is_file() and (folder / INDEX).is_file():
        before = load(PlanSketchSettings, path)
        if before.prompts.count >= settings.prompts.count:
            return
    save_resolved(settings, path)
