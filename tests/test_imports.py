"""What importing costs, and who may import whom."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "diffusers", "torchvision")
PURE = [
    "staged",
    "staged.cli",
    "staged.trajectory",
    "staged.scene_graph",
    "staged.settings",
    "staged.jobs",
    "staged.protocol",
    "staged.shards",
    "staged.roles",
    "staged.loops.rollouts",
    "staged.loops.staged",
    "staged.loops.unbatched",
    "staged.loops.idea2img.loop",
    "staged.backends.lmm.client",
    "staged.ideas.folder",
    "staged.report",
    "staged.shapes.tasks",
    "staged.shapes.drills",
    "staged.shapes.players.lmm",
    "staged.shapes.players.scripted",
]


def test_a_pure_module_imports_no_torch() -> None:
    code = f"""
import importlib, sys
for module in {PURE}:
    importlib.import_module(module)
    found = [name for name in {HEAVY} if name in sys.modules]
    assert not found, (module, found)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_is_opened_without_what_takes_seconds_to_import() -> None:
    slow = ("diffusers", "peft", "openai", "torch._dynamo", "transformers.modeling_utils")
    code = (
        "import sys; from staged.generate.role_choice import open_engine;"
        "open_engine('miniature:fresh'); open_engine('miniature:staged');"
        f"print('LOADED', *[m for m in {slow} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "LOADED", done.stdout + done.stderr


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from staged.cli import main; main([]);"
        "print('LOADED', *[m for m in sys.modules if m.split('.')[0] in"
        " ('numpy', 'yaml', 'data_pipelines', 'train', 'eval', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "LOADED", done.stderr
