"""Optimizers by sd-scripts' names and the arguments their libraries take, both ways.

Each library has defaults of its own; where ours differ, what is absent there is written down here, so that the same
optimizer runs. Used by the readers and the writers of sd-scripts, Kohya's form and AI Toolkit.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainpilot.config.schema import Optimizer


@dataclass(frozen=True)
class Known:
    """One optimizer. defaults: the library's weight decay, betas and eps; ours: what our builder passes unasked."""

    ours: str
    decay: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float | None = 1e-8
    implied: Mapping[str, Any] | None = None


# By sd-scripts' names, in lower case. decay, betas and eps are the defaults of torch, bitsandbytes, lion-pytorch,
# transformers, prodigyopt and schedulefree.
KNOWN = {
    "adamw": Known("adamw", 0.01),
    "adamw8bit": Known("adamw8bit", 0.01),
    "lion": Known("lion", 0.0, 0.9, 0.99, None),
    "lion8bit": Known("lion8bit", 0.0, 0.9, 0.99, None),
    "adafactor": Known("adafactor", 0.0, 0.0, 0.999, None),
    "prodigy": Known("prodigy", 0.0),
    "adamwschedulefree": Known("adamw_schedulefree", 0.0),
}
NAMES = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW8bit",
    "lion": "Lion",
    "lion8bit": "Lion8bit",
    "adafactor": "Adafactor",
    "prodigy": "Prodigy",
    "adamw_schedulefree": "AdamWScheduleFree",
}
# Near relatives, and how they differ.
RELATIVES = {
    "": ("adamw", ""),
    "pagedadamw": ("adamw", "its state is not paged to RAM"),
    "pagedadamw8bit": ("adamw8bit", "its state is not paged to RAM"),
    "pagedadamw32bit": ("adamw", "its state is not paged to RAM"),
    "pagedlion8bit": ("lion8bit", "its state is not paged to RAM"),
    "prodigyplus.prodigyplusschedulefree": ("prodigy", "Prodigy without its Schedule-Free part"),
    "prodigyplusschedulefree": ("prodigy", "Prodigy without its Schedule-Free part"),
}
RELATIVES |= {
    f"dadapt{name}": ("prodigy", "Prodigy is its authors' successor of D-Adaptation")
    for name in ("ation", "adagrad", "adam", "adan", "adanip", "adampreprint", "sgd", "lion")
}
# What our builders pass where optimizer.args says nothing, and what the library would take.
OURS_UNASKED: dict[str, dict[str, tuple[Any, Any]]] = {
    "prodigy": {
        "decouple": (True, True),
        "use_bias_correction": (True, False),
        "safeguard_warmup": (True, False),
    },
    "adafactor": {
        "relative_step": (False, True),
        "scale_parameter": (False, True),
        "warmup_init": (False, False),
    },
}
LONGEST = 200  # characters of one argument


def literal(text: str) -> Any:
    """A Python literal, as sd-scripts reads optimizer arguments; text that is none stays text."""
    if len(text) > LONGEST:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {"true": True, "false": False}.get(text.lower(), text)


@dataclass
class Read:
    """settings: paths of ours; notes: how it differs; dropped: arguments that could not be taken, and why."""

    settings: dict[str, Any]
    notes: list[str]
    dropped: dict[str, str]


def read(name: str, args: Mapping[str, Any]) -> Read | None:
    """Our settings for an optimizer of sd-scripts and its arguments (already literals). None where there is no like.

    Every default of the library that ours would differ from is written down.
    """
    lower = name.lower().rpartition(".")[2] if name.lower() not in RELATIVES else name.lower()
    note = ""
    if lower in RELATIVES:
        lower, note = RELATIVES[lower]
    known = KNOWN.get(lower)
    if known is None:
        return None
    notes, dropped = [note] if note else [], {}
    rest = dict(args)
    settings: dict[str, Any] = {"optimizer.name": known.ours}
    settings["optimizer.weight_decay"] = rest.pop("weight_decay", known.decay)
    betas = rest.pop("betas", None)
    beta1, beta2 = known.beta1, known.beta2
    if isinstance(betas, (tuple, list)) and len(betas) >= 2:
        beta1, beta2 = betas[0], betas[1]
        if len(betas) > 2:
            rest["beta3"] = betas[2]
    elif betas is not None:
        dropped["betas"] = "two numbers, such as 0.9,0.999"
    if known.ours == "adafactor":
        beta1 = rest.pop("beta1", None) or 0.0
    settings["optimizer.beta1"], settings["optimizer.beta2"] = beta1, beta2
    if known.eps is not None:
        settings["optimizer.eps"] = rest.pop("eps", known.eps)
    for option, (ours, theirs) in OURS_UNASKED.get(known.ours, {}).items():
        asked = rest.pop(option, theirs)
        if option == "relative_step":
            if asked:
                notes.append("relative_step would discard the learning rate: it is off, and the rate as given is used")
        elif asked != ours:
            rest[option] = asked
    kept = {}
    for option, value in rest.items():
        if isinstance(value, (bool, int, float, str)):
            kept[option] = value
        else:
            dropped[option] = "a number, true, false or a text"
    settings["optimizer.args"] = kept
    return Read(settings, notes, dropped)


@dataclass
class Written:
    """name: sd-scripts' name; args: keyword -> value; mapped: our paths that read back the same; changed: how not."""

    name: str
    args: dict[str, Any]
    mapped: list[str]
    changed: dict[str, str]


def write(optimizer: Optimizer) -> Written:
    """An optimizer of ours as a name and arguments of sd-scripts, everything written out."""
    name = optimizer.name
    known = KNOWN[NAMES[name].lower()]
    mapped, changed = ["optimizer.name", "optimizer.weight_decay"], {}
    args: dict[str, Any] = {"weight_decay": optimizer.weight_decay}
    if name == "adafactor":
        if optimizer.beta1:
            args["beta1"] = optimizer.beta1
        mapped.append("optimizer.beta1")
        changed["optimizer.beta2"] = "Adafactor has none"
    else:
        args["betas"] = (optimizer.beta1, optimizer.beta2)
        mapped += ["optimizer.beta1", "optimizer.beta2"]
    if known.eps is not None:
        args["eps"] = optimizer.eps
        mapped.append("optimizer.eps")
    else:
        changed["optimizer.eps"] = f"{NAMES[name]} takes none"
    unasked = OURS_UNASKED.get(name, {})
    args |= {option: ours for option, (ours, _) in unasked.items()}
    again = {"weight_decay", "betas", "beta1", "eps", "lr", "params"}
    redundant = [key for key, value in optimizer.args.items() if key in unasked and value == unasked[key][0]]
    clashing = [key for key in optimizer.args if key in again or not key.isidentifier()]
    for key, value in optimizer.args.items():
        if key not in clashing:
            args[key] = value
    if redundant or clashing:
        changed["optimizer.args"] = f"{', '.join(redundant + clashing)}: already said by another argument"
    else:
        mapped.append("optimizer.args")
    return Written(NAMES[name], args, mapped, changed)


def as_pairs(args: Mapping[str, Any]) -> list[str]:
    """{"betas": (0.9, 0.99)} -> ["betas=0.9,0.99"], as sd-scripts reads them back."""
    return [f"{key}={_text(value)}" for key, value in args.items()]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(repr(item) for item in value)
    return repr(value)
