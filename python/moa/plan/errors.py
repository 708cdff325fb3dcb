"""What the planner says when an input is wrong: one line that ends with the cure."""

from __future__ import annotations

from ..errors import Error


class PlannerError(Error, ValueError):
    """A wrong input of the planner; `moa-plan` prints it and exits with 2."""


class PlanError(PlannerError):
    """A wrong file: `file:line:column: key/path: expected .., found ..; cure`."""

    def __init__(
        self,
        file: str,
        message: str,
        *,
        line: int = 0,
        column: int = 0,
        key: str = "",
        cure: str = "",
    ) -> None:
        self.file, self.line, self.column = file, line, column  #: From 1; 0: none named.
        self.key, self.message, self.cure = key, message, cure
        text = f"{file}:"
        text += f"{line}:" if line else ""
        text += f"{column}:" if column else ""
        text += f" {key}:" if key else ""
        text += f" {message}"
        text += f"; {cure}" if cure else ""
        super().__init__(text)
