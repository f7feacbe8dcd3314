"""The study as a graph: interpret, plan, ask, measure the noise, try, judge, confirm, unseal, report.

Nodes are in `understand` (the goal), `trials` and `rounds` (the loop), `untrained` (goals without a loop) and `finish`
(the end); this file is the wiring.
Interrupts have nodes of their own, since a resumed node runs again from its first line.
"""

from typing import Any

from langgraph.graph import END, START, StateGraph  # pyright: ignore[reportMissingTypeStubs]

from nightsmith.agent import finish, rounds, trials, understand, untrained
from nightsmith.agent.services import Services
from nightsmith.agent.state import State


def build(checkpointer: Any = None) -> Any:
    """Compile the graph. With a checkpointer it survives the death of its process."""
    graph: Any = StateGraph(State, context_schema=Services)  # its generics are only half annotated upstream
    graph.add_node("interpret", understand.interpret, destinations=("clarify", "preflight", "report"))
    graph.add_node("clarify", understand.clarify, destinations=("interpret", "report"))
    graph.add_node("preflight", understand.check_world, destinations=("approve", "report"))
    graph.add_node("approve", understand.approve, destinations=("preflight", "baseline", "prepare", "report"))
    graph.add_node("prepare", untrained.prepare, destinations=("report",))
    graph.add_node("baseline", trials.baseline, destinations=("start", "report"))
    graph.add_node("calibrate", trials.calibrate, destinations=("start", "propose"))
    graph.add_node("propose", trials.propose, destinations=("check", "confirm", "report"))
    graph.add_node("check", trials.check, destinations=("start", "propose"))
    graph.add_node("start", rounds.start, destinations=("wait", "judge"))
    graph.add_node("wait", rounds.wait)
    graph.add_edge("wait", "judge")
    graph.add_node("judge", rounds.judge, destinations=("start", "calibrate", "propose", "confirm", "unseal", "report"))
    graph.add_node("confirm", finish.confirm, destinations=("start", "unseal", "report"))
    graph.add_node("unseal", finish.unseal, destinations=("start", "report"))
    graph.add_node("report", finish.report)
    graph.add_edge(START, "interpret")
    graph.add_edge("report", END)
    return graph.compile(checkpointer=checkpointer)


def mermaid() -> str:
    """The graph as Mermaid text, for the documentation."""
    return build().get_graph().draw_mermaid()
