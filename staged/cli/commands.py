"""The table of commands.

A command is a function `main(argv: list[str]) -> int` with a `staged.command_line.Parser` of its
own, whose `--help` ends with an example. To add one, write the function and add its row here.
"""

from staged.command_line import Command

__all__ = ["COMMANDS", "Command"]

COMMANDS = {
    "demo": Command("run the whole method in miniature and write a report", "staged.cli.demo:main"),
    "data": Command("build a data set of trajectories", "data_pipelines.__main__:main"),
    "train": Command("fine-tune a model on data sets", "train.__main__:main"),
    "reinforce": Command(
        "let a model learn from its own graded rollouts", "train.reinforce.command:main"
    ),
    "self-reward": Command(
        "train a model to write prompts, by its own judgement", "train.self_reward.command:main"
    ),
    "generate": Command("draw a prompt in stages", "staged.generate.command:main"),
    "tune-steps": Command(
        "find the flow steps that need not be computed", "staged.generate.tune_steps:main"
    ),
    "serve": Command("serve a model over HTTP", "staged.server.command:main"),
    "idea2img": Command("draw an idea by exploring prompts", "staged.idea2img.command:main"),
    "export": Command(
        "write a checkpoint in the published layout, whoever made it", "staged.export:main"
    ),
    "merge-lora": Command("add a LoRA to its checkpoint's weights", "staged.export:merge_lora"),
    "idea2img-study": Command("let people choose between pictures", "eval.study.command:main"),
    "eval": Command("score a model on a benchmark", "eval.__main__:main"),
    "paper": Command("build, draw and write up a whole study", "staged.cli.paper:main"),
    "report": Command("show trajectories as one web page", "staged.report:main"),
    "verify": Command("compare a model with recorded tensors", "staged.verify:main"),
    "shapes": Command("look at and measure the miniature world", "staged.shapes.__main__:main"),
    "configs": Command(
        "list, show and copy the settings that are shipped", "staged.cli.configs:main"
    ),
    "completion": Command("completion of commands for a shell", "staged.cli.completion:main"),
}
