"""The external trainers, by the name that a spec's `backend` has. Torch-free."""

from nightsmith.trainer.external import automodel, axolotl
from nightsmith.trainer.external.tool import Tool

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (axolotl.TOOL, automodel.TOOL)}
