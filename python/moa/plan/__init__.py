"""The planner: span plans made, checked, compared and handed on (`moa-plan`).

Uses numpy and, to optimise, HiGHS; of the rest of the package only the span
arithmetic. See README.md beside this file.
"""

from .curves import Curves
from .errors import PlanError, PlannerError
from .model import ModelShape, load_model
from .schema import Plan, load_plan, make_plan, parse_plan
from .span import SpanParams

__all__ = [
    "Curves",
    "ModelShape",
    "Plan",
    "PlanError",
    "PlannerError",
    "SpanParams",
    "load_model",
    "load_plan",
    "make_plan",
    "parse_plan",
]
