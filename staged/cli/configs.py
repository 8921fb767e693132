"""`staged configs`: the settings files that come with the package."""

from pathlib import Path

from staged.command_line import Parser, add_out_file, exit_codes
from staged.settings import find_config, shipped_configs


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the copy would replace a file.
    """
    parser = Parser(
        prog="staged configs",
        description="List the settings files that come with the package, show one, or copy it.",
        epilog="examples:\n  staged configs\n  staged configs configs/shapes/demo_train.yaml\n"
        "  staged configs configs/shapes/demo_train.yaml --out mine.yaml",
    )
    parser.add_argument("name", nargs="?", type=Path, help="as listed; without one, all are listed")
    add_out_file(parser, required=False, words="copy it there instead of showing it")
    options = parser.parse_args(argv)
    if options.name is None:
        if options.out is not None:
            parser.error("--out copies one file: name it")
        listed = {str(name): _about(path) for name, path in shipped_configs().items()}
        width = max(map(len, listed))
        for name, about in listed.items():
            print(f"{name:{width}}  {about}".rstrip())
        return exit_codes.OK
    text = find_config(options.name).read_text(encoding="utf-8")
    if options.out is None:
        print(text, end="")
        return exit_codes.OK
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with options.out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{options.out} is there already; choose another --out") from None
    print(f"wrote {options.out}")
    return exit_codes.OK


def _about(path: Path) -> str:
    """The first comment of a file, on one line."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line.startswith("#"):
            break
        words.append(line.strip("# "))
    return " ".join(words).partition(". ")[0].rstrip(".")
