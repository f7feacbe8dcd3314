"""The command line. Everything heavy is imported inside the command that uses it: `--help` stays instant."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nightsmith.agent.night_cli import night_app
from nightsmith.record.errors import NightsmithError

app = typer.Typer(
    help="Type a goal in English; Nightsmith plans, trains, judges and reports. Everything runs on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Models: what one takes, and those that Nightsmith itself uses.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(night_app, name="night")

Goal = Annotated[str, typer.Argument(help='The goal, in English, in quotes. "-" reads it from standard input.')]
Study = Annotated[str, typer.Argument(help="Study id, as `nightsmith studies` lists it, e.g. s1.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", help="Approve the plan beforehand, within the goal's own budget.")]
Workspace_ = Annotated[Path | None, typer.Option("--workspace", help="The .nightsmith folder; else found upwards.")]


@app.command()
def run(goal: Goal, yes: Yes = False, as_json: Json = False, workspace: Workspace_ = None) -> None:
    """Pursue one goal to its end.

    Exit status: 0 proven, met or improved as asked; 3 ended without; 4 needs answers; 5 blocked; 6 waits for an
    approval; 130 interrupted (resume goes on); 2 wrong usage; 1 a bug.
    """
    from nightsmith.agent import session

    raise typer.Exit(session.run(_text(goal), workspace, yes=yes, as_json=as_json))


@app.command()
def plan(
    goal: Annotated[str, typer.Argument(help='The goal, in English; "-" reads it from standard input.')] = "",
    batch: Annotated[Path | None, typer.Option(help='JSONL of {"id", "goal"}: one answer a line.')] = None,
    check: Annotated[bool, typer.Option("--check", help="Also check files and hardware (preflight).")] = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Show how a goal is understood and what would be run. Starts nothing."""
    from nightsmith.agent import session

    if not goal and batch is None:
        raise typer.BadParameter('Give a goal in quotes, "-" for standard input, or --batch FILE.')
    text = _text(goal) if goal else None
    raise typer.Exit(session.plan(text, batch, workspace, check=check, as_json=as_json))


@app.command()
def resume(
    study: Study,
    answer: Annotated[list[str] | None, typer.Option(help="Answer to an open question; repeat for more.")] = None,
    yes: Yes = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Go on exactly where a study was left; while another process drives it, watch it."""
    from nightsmith.agent import session

    raise typer.Exit(session.resume(study, workspace, answers=answer or [], yes=yes, as_json=as_json))


@app.command()
def chat(workspace: Workspace_ = None) -> None:
    """The console: goals, plans, approvals, running jobs and questions in one place. Offers what is unfinished."""
    from nightsmith.agent import chat

    raise typer.Exit(chat.chat(workspace))


@app.command()
def tell(study: Study, text: Annotated[str, typer.Argument(help="What to try next, or to leave alone.")],
         workspace: Workspace_ = None) -> None:  # fmt: skip
    """Steer a study by a sentence, inside its approved plan; whoever drives it hears it."""
    from nightsmith.agent import chat

    raise typer.Exit(chat.tell(study, text, workspace))


@app.command()
def ask(study: Study, question: Annotated[str, typer.Argument(help='Such as "why was trial 2 rejected?".')],
        workspace: Workspace_ = None) -> None:  # fmt: skip
    """Answer a question about a study from its result files."""
    from nightsmith.agent import chat

    raise typer.Exit(chat.ask(study, question, workspace))


@app.command()
def stop(study: Study, workspace: Workspace_ = None) -> None:
    """End a study in order: its jobs stop, what there is gets judged and reported."""
    from nightsmith.agent import session

    raise typer.Exit(session.stop(study, workspace))


@app.command()
def show(
    study: Study,
    every: Annotated[bool, typer.Option("--all", help="Show every trial of a long study.")] = False,
    decisions: Annotated[bool, typer.Option("--decisions", help="Show what the planner decided.")] = False,
    replay: Annotated[int | None, typer.Option(help="Ask for this decision again; exit 3 where it differs.")] = None,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """One study: goal, trials, verdicts, budget, outcome; or the planner's decisions in it."""
    from nightsmith.agent import display

    if decisions or replay is not None:
        from nightsmith.agent import decisions as deciding

        if replay is not None:
            raise typer.Exit(deciding.replay(study, replay, workspace, as_json=as_json))
        raise typer.Exit(deciding.show(study, workspace, as_json=as_json))
    raise typer.Exit(display.show(study, workspace, as_json=as_json, every=every))


@app.command()
def studies(as_json: Json = False, workspace: Workspace_ = None) -> None:
    """All studies of the workspace."""
    from nightsmith.agent import display

    raise typer.Exit(display.studies_table(workspace, as_json=as_json))


@app.command()
def report(study: Study, workspace: Workspace_ = None) -> None:
    """Write a study's report (HTML and Markdown) anew and print where it lies."""
    from nightsmith.agent import display

    raise typer.Exit(display.report(study, workspace))


@app.command()
def doctor(as_json: Json = False, workspace: Workspace_ = None) -> None:
    """What works on this machine: found, missing, how to get it. Exit 5 where `run` lacks something it needs."""
    from nightsmith.agent import doctor

    raise typer.Exit(doctor.examine(workspace, as_json=as_json))


@app.command()
def ui(
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; else a free one.", min=1, max=65535)] = None,
    open_page: Annotated[bool | None, typer.Option("--open/--no-open", help="Open it in the browser.")] = None,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Look at all studies in MLflow, served on this machine only, until Ctrl-C."""
    from nightsmith.agent import ui

    raise typer.Exit(ui.serve(workspace, port=port, open_page=open_page, as_json=as_json))


@app.command()
def train(
    spec: Annotated[Path, typer.Argument(help="A RunSpec as JSON, e.g. runs/KEY/spec.json of an earlier run.")],
    study: Annotated[str, typer.Option(help="Study whose budget and approval it draws on.")] = "",
    minutes: Annotated[float, typer.Option(help="Time limit of the job in minutes.", min=0.1)] = 10,
    gpus: Annotated[int, typer.Option(help="GPUs that it gets; 0: one CPU core.", min=0)] = 0,
    render: Annotated[bool, typer.Option("--render", help="Only print an external trainer's recipe.")] = False,
    gpu: Annotated[str, typer.Option(help="With --render: H100, H200 or B200.")] = "H100",
    gpus_per_node: Annotated[int, typer.Option(help="With --render: GPUs in one machine.", min=1)] = 8,
    like: Annotated[str, typer.Option(help="With --render: plan as for this model, while the spec's is absent.")] = "",
    yes: Yes = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Run one training or evaluation job without the agent, under the same budget, approval and device rules."""
    from nightsmith.agent import external_recipe, session

    if render:
        parsed = session.parse_spec(spec)
        where: dict[str, Any] = {"gpus": gpus, "gpu": gpu, "gpus_per_node": gpus_per_node}
        raise typer.Exit(external_recipe.show(parsed, **where, like=like, as_json=as_json))
    code = session.train(spec, workspace, study=study, time_limit_s=minutes * 60, gpus=gpus, yes=yes, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def export(
    what: Annotated[str, typer.Argument(help="A study (its winner), a job's key, or a model's folder.")],
    to: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    trial: Annotated[int | None, typer.Option(help="A trial of the study instead of its winner.", min=0)] = None,
    form: Annotated[str, typer.Option("--format", help="safetensors, gguf or gguf-lora.")] = "safetensors",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or (gguf) q8_0; else as trained.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the model that is in the folder.")] = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Write a model as a folder that transformers, vLLM or llama.cpp load, with a card that says where it is from.

    gguf-lora writes a Llama's adapter alone, which llama.cpp applies to its base.
    """
    from nightsmith.agent import exporting

    raise typer.Exit(
        exporting.export_model(
            what, to, workspace, trial=trial, form=form, precision=precision or None, force=force, as_json=as_json
        )
    )


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    keep: Annotated[int, typer.Option(help="Checkpoints of each study that stay for their dev score.", min=1)] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: Json = False,
    workspace: Workspace_ = None,
) -> None:
    """Remove checkpoints of ended studies that nothing needs; results, events and logs stay.

    Exit status 6 where there is something to remove and neither a person nor --yes says that it may go.
    """
    from nightsmith.agent import removing

    raise typer.Exit(removing.collect(workspace, best=keep, dry_run=dry_run, yes=yes, as_json=as_json))


@model_app.command("pull")
def model_pull(
    name: Annotated[str, typer.Argument(help="What to fetch: `planner`.")],
) -> None:
    """Fetch the embedded planner's weights once; afterwards everything works without a network."""
    from nightsmith.agent import session

    raise typer.Exit(session.pull(name))


@model_app.command("plan")
def model_plan(
    name: Annotated[str, typer.Argument(help="small4, gpt-oss-120b, nano, …, or a folder with a config.json.")],
    gpus: Annotated[int, typer.Option(help="How many GPUs, in all.")],
    gpu: Annotated[str, typer.Option(help="H100, H200 or B200.")] = "H100",
    method: Annotated[str, typer.Option(help="full, lora or qlora.")] = "full",
    optimizer: Annotated[str, typer.Option(help="adamw, or adamw8bit: states of 8 bits.")] = "adamw",
    seq_len: Annotated[int, typer.Option(help="Tokens of a sequence.", min=1)] = 4096,
    micro_batch: Annotated[int, typer.Option(help="Sequences on a GPU at once.", min=1)] = 1,
    lora_rank: Annotated[int, typer.Option(help="Rank of adapters.", min=1)] = 16,
    lora_experts: Annotated[bool, typer.Option("--lora-experts", help="Adapters on routed experts too.")] = False,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs in one machine.")] = 8,
    every: Annotated[bool, typer.Option("--all", help="Show every layout.")] = False,
    as_json: Json = False,
) -> None:
    """What a model takes on given GPUs: parameters, memory, disk, layouts, speed; whether it fits, and what would."""
    from nightsmith.agent import model_plan

    settings: dict[str, object] = {
        "method": method, "optimizer": optimizer, "seq_len": seq_len, "micro_batch": micro_batch,
        "lora_rank": lora_rank, "lora_experts": lora_experts,
    }  # fmt: skip
    code = model_plan.plan(
        name, gpus=gpus, gpu=gpu, gpus_per_node=gpus_per_node, settings=settings, as_json=as_json, every=every
    )
    raise typer.Exit(code)


@model_app.command("serve")
def model_serve(
    name: Annotated[str, typer.Argument(help="small4, gpt-oss-120b, …, or a model's folder.")],
    print_only: Annotated[bool, typer.Option("--print", help="Only print the command line.")] = False,
    gpus: Annotated[int | None, typer.Option(help="At most so many GPUs; else all, or the reserved.", min=1)] = None,
    gpu: Annotated[str, typer.Option(help="With --print: H100, H200 or B200 of another machine.")] = "",
    max_model_len: Annotated[int | None, typer.Option(help="Tokens of context; else the most.", min=1024)] = None,
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Serve a planner by vLLM on the GPUs of this machine, as it fits, until Ctrl-C. Downloads nothing."""
    from nightsmith.agent.model_serve import Order, serve

    order = Order(name=name, gpus=gpus, gpu=gpu, host=host, port=port, max_len=max_model_len)
    raise typer.Exit(serve(order, print_only=print_only, as_json=as_json))


def _text(goal: str) -> str:
    text = sys.stdin.read() if goal == "-" else goal
    if not text.strip():
        raise typer.BadParameter("The goal is empty. Say what to train on what data until which figure is reached.")
    return text.strip()


def fail(error: NightsmithError) -> int:
    """Print an expected failure as it is, to standard error (as JSON too where that was asked for)."""
    if "--json" in sys.argv:
        content: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(content), file=sys.stdout)
    print(f"nightsmith: {error}", file=sys.stderr)
    return error.exit_code


def main() -> None:
    """Entry point: expected failures are printed without a traceback, anything else is a bug (exit 1)."""
    try:
        app()
    except NightsmithError as error:
        raise SystemExit(fail(error)) from None


if __name__ == "__main__":
    main()
