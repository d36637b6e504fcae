"""Print bash completions of `trainpilot` and `controlpilot`, made from their own parsers. Used by the image build."""

from __future__ import annotations

import argparse
import importlib
import shlex

from trainpilot.cli import verbs

FUNCTION = """\
_{program}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]:-}}
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W {verbs} -- "$word"))
        return
    fi
    case $verb in
{cases}
    esac
    [[ $word == -* ]] || COMPREPLY=()
}}
complete -o default -F _{program} {program}
"""


def options(verb: str, module: str) -> list[str]:
    parser = argparse.ArgumentParser(prog=verb)
    importlib.import_module(module).arguments(parser)
    return sorted({text for action in parser._actions for text in action.option_strings if text.startswith("--")})


def completion(program: str) -> str:
    known = verbs(importlib.import_module(f"{program}.cli"))
    cases = "\n".join(
        f'    {verb}) COMPREPLY=($(compgen -W {shlex.quote(" ".join(options(verb, module)))} -- "$word")) ;;'
        for verb, module in known.items()
    )
    return FUNCTION.format(program=program, verbs=shlex.quote(" ".join(known)), cases=cases)


if __name__ == "__main__":
    print(completion("trainpilot"))
    print(completion("controlpilot"))
