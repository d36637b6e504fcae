"""The samplers by name, as data without torch: the merge checks names by it, the engine builds from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainpilot.families.card import card


@dataclass(frozen=True)
class Sampler:
    """A named way from noise to picture: a diffusers scheduler and the options that make it this one."""

    scheduler: str
    flow: bool = False
    options: dict[str, Any] = field(default_factory=dict)


_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SAMPLERS = {
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler"),
    "dpmpp_2m_karras": Sampler("DPMSolverMultistepScheduler", options=_KARRAS),
    "dpmpp_2m_sde": Sampler("DPMSolverMultistepScheduler", options=_SDE),
    "dpmpp_2m_sde_karras": Sampler("DPMSolverMultistepScheduler", options=_SDE | _KARRAS),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler"),
    "ddim": Sampler("DDIMScheduler", options={"clip_sample": False}),
    "unipc": Sampler("UniPCMultistepScheduler"),
    "flow_euler": Sampler("FlowMatchEulerDiscreteScheduler", flow=True),
    "flow_dpmpp_2m": Sampler("DPMSolverMultistepScheduler", flow=True, options=_FLOW),
    "flow_unipc": Sampler("UniPCMultistepScheduler", flow=True, options=_FLOW),
}


def samplers_of(family: str) -> list[str]:
    """Names of the samplers that can sample a family."""
    flow = card(family).prediction == "flow"
    return [name for name, sampler in SAMPLERS.items() if sampler.flow == flow]
