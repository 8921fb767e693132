"""A folder takes one job: what else is asked of it is refused, and what it says of itself stays."""

from pathlib import Path

from data_pipelines.job_settings import JobSettings
from staged.jobs.records import Records
from staged.settings import changes, load, save_resolved
from staged.shards.folder import INDEX

SETTINGS = "settings.yaml"


def refuse_other_settings(settings: JobSettings, folder: Path) -> None:
    """Compare with what the folder was begun with.

    Raises:
        ValueError: Something that decides samples is another; names each.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return
    old, new = load(type(settings), path).deciding, settings.deciding
    if not (changed := changes(old, new)):
        return
    ways = []
    if {**old, "words": None} != {**new, "words": None}:
        ways.append(f"Write to another folder, or go on with the settings in {path}")
    if old.get("words") != new.get("words"):  # found by the job itself, whatever the settings say
        ways.append(
            "Requests are worded otherwise since: write to another folder, end it with the version "
            "of staged that began it, or give its words back (wording)"
        )
    raise ValueError(
        f"{folder} holds a data set of other settings: {'; '.join(changed)}. {'. '.join(ways)}"
    )


def record_settings(settings: JobSettings, folder: Path, records: Records) -> None:
    """Write the settings of a job that goes on or grows; those of a finished one stand.

    Raises:
        ValueError: Fewer prompts are asked for than there are results of.
    """
    built = max(records.finished(round_=0), default=-1) + 1
    if settings.num_units < built:
        raise ValueError(
            f"prompts.count is {settings.num_units}, but {folder} has results up to prompt "
            f"{built}: give at least {built}, or another folder"
        )
    path = folder / SETTINGS
    if path.is_file() and (folder / INDEX).is_file():
        before = load(type(settings), path)
        if before.num_units >= settings.num_units:
            return
    save_resolved(settings, path)
