"""`staged completion`: scripts that let a shell complete commands and options.

They are written from the commands' own parsers, so they know what `--help` knows; after an option
and where nothing of ours fits, the shell completes file names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from staged.command_line import Parser, exit_codes, walk

Tree = Sequence[tuple[str, list[str]]]
"""For each command, the words that lead to it and what may follow."""

_BASH = """# Completion of staged for bash.
_staged() {{
    local at="" word candidates="" current="${{COMP_WORDS[COMP_CWORD]}}"
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$at $word" in
            {paths}) at="$at $word" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$candidates" -- "$current"))
}}
complete -o bashdefault -o default -F _staged staged
"""

_ZSH = """#compdef staged
# Completion of staged for zsh.
_staged() {{
    local at="" word candidates=""
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at $word" in
            ({paths}) at="$at $word" ;;
        esac
    done
    case "$at" in
{cases}
    esac
    compadd -- ${{=candidates}} || _files
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef _staged staged
"""

_FISH = """# Completion of staged for fish.
function __staged_at
    set -l at ""
    for word in (commandline -opc)[2..]
        switch "$at $word"
            case {paths}
                set at "$at $word"
        end
    end
    test "$at" = "$argv[1]"
end
{cases}
"""


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    parser = Parser(
        prog="staged completion",
        description="Print a script that completes the commands and options of staged.",
        epilog="examples:\n"
        "  staged completion bash > ~/.local/share/bash-completion/completions/staged\n"
        "  staged completion zsh  > ~/.zfunc/_staged      (with ~/.zfunc in $fpath)\n"
        "  staged completion fish > ~/.config/fish/completions/staged.fish",
    )
    parser.add_argument("shell", choices=list(SHELLS), help="whose script")
    options = parser.parse_args(argv)
    print(SHELLS[options.shell](tree()), end="")
    return exit_codes.OK


def tree() -> Tree:
    """Every command with what may follow it: its own commands, then its options."""
    from staged.cli.main import choose  # which knows this module by its table

    return [
        (
            "".join(f" {word}" for word in words),
            [*parser.parts(), *parser.commands, *parser.options()],
        )
        for words, parser in walk(choose)
    ]


def bash(tree: Tree) -> str:
    """Write the script for bash."""
    return _BASH.format(paths=_paths(tree), cases=_cases(tree, "{})"))


def zsh(tree: Tree) -> str:
    """Write the script for zsh."""
    return _ZSH.format(paths=_paths(tree), cases=_cases(tree, "({})"))


def fish(tree: Tree) -> str:
    """Write the script for fish."""
    paths = " ".join(f'"{path}"' for path, _ in tree if path)
    cases = "\n".join(
        f"complete -c staged -n '__staged_at \"{path}\"' -a '{' '.join(words)}'"
        for path, words in tree
    )
    return _FISH.format(paths=paths, cases=cases)


def _paths(tree: Tree) -> str:
    return "|".join(f'"{path}"' for path, _ in tree if path)


def _cases(tree: Tree, pattern: str) -> str:
    return "\n".join(
        f'        {pattern.format(f"{chr(34)}{path}{chr(34)}")} candidates="{" ".join(words)}" ;;'
        for path, words in tree
    )


SHELLS: dict[str, Callable[[Tree], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
