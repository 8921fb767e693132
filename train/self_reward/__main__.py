"""`accelerate launch -m train.self_reward …`, as `staged self-reward …`, on several processes."""

import sys

from staged.command_line.applications import run_as_module
from train.self_reward.command import main

if __name__ == "__main__":
    sys.exit(run_as_module("train.self_reward", __file__, main))
