"""`trainpilot link`: a LoRA into ComfyUI's and A1111's folders, with the line for a prompt and a ComfyUI workflow."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Put a LoRA into ComfyUI's and A1111's folders, and print how to use it"
EXAMPLE = "trainpilot link zorp --comfyui ~/ComfyUI --a1111 ~/stable-diffusion-webui --workflow zorp-comfyui.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", metavar="RUN|FILE", help="run by name or folder, or a LoRA file")
    parser.add_argument("--comfyui", metavar="DIR", help="ComfyUI's folder, or its folder for LoRAs")
    parser.add_argument("--a1111", metavar="DIR", help="the web UI's folder (A1111, Forge), or its folder for LoRAs")
    parser.add_argument("--copy", action="store_true", help="copy instead of linking")
    parser.add_argument("--workflow", metavar="FILE", help="write a ComfyUI workflow that loads it (.json)")
    parser.add_argument("--api", action="store_true", help="write the workflow in the format of ComfyUI's HTTP API")
    parser.add_argument("--strength", type=float, default=0.8, help="strength in the line and the workflow (0.8)")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._options import workspace
    from trainpilot.errors import PilotError
    from trainpilot.formats import comfyui
    from trainpilot.formats.account import lora_line
    from trainpilot.formats.link import folder_of, link
    from trainpilot.formats.release import gather
    from trainpilot.runs.atomic import write_beside

    release = gather(workspace(args), args.lora)
    done = []
    for tool in ("comfyui", "a1111"):
        if getattr(args, tool):
            done.append(link(release.file, folder_of(tool, Path(getattr(args, tool)).expanduser()), copy=args.copy))
    if args.workflow:
        path = Path(args.workflow)
        if path.exists():
            raise PilotError(path, "exists already", "a new file", "Name another one, or move this one away.")
        prompt = release.samples[0].prompt if release.samples else release.trigger
        graph = comfyui.workflow(release.about.family, release.file.name, release.base_name, prompt, args.strength)
        write_beside(path, (json.dumps(graph if args.api else comfyui.canvas(graph), indent=1) + "\n").encode())
    line = lora_line(release.file, args.strength) + (f" {release.trigger}" if release.trigger else "")
    if args.json:
        places = [{"place": str(one.place), "how": one.how, "why": one.why} for one in done]
        print(json.dumps({"file": str(release.file), "linked": places, "prompt": line, "workflow": args.workflow}))
        return int(ExitCode.DONE)
    for one in done:
        print(f"{one.place}: {one.how}{f' ({one.why})' if one.why else ''}")
    if args.workflow:
        print(
            f"{args.workflow}: open it in ComfyUI's window" if not args.api else f"{args.workflow}: send it to /prompt"
        )
    print(f"in a prompt: {line}")
    return int(ExitCode.DONE)
