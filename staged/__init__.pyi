from staged.api import DrawingFailed as DrawingFailed
from staged.api import LoadedModel as LoadedModel
from staged.api import load as load
from staged.trajectory import Answer as Answer
from staged.trajectory import ImageRef as ImageRef
from staged.trajectory import Inspection as Inspection
from staged.trajectory import Plan as Plan
from staged.trajectory import Refinement as Refinement
from staged.trajectory import Sketch as Sketch
from staged.trajectory import Stop as Stop
from staged.trajectory import Thought as Thought
from staged.trajectory import Trajectory as Trajectory
from staged.trajectory_folder import load_trajectory as load_trajectory
from staged.trajectory_folder import save_trajectory as save_trajectory

__version__: str
__all__: list[str]
