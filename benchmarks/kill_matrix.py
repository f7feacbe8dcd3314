"""kill -9 of the agent or of a worker at many moments of a study, then `nightsmith resume`: same jobs, same verdict.

    python benchmarks/kill_matrix.py [--study pretrain|sft] [--moments 20] [--first 0] [--json out.json]

The study is small and real (command line, training, MLflow); only the planner is a double that answers the same each
time. Bounded by trials, its verdicts must be those of the undisturbed run. Every job has one key and one result.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fakes"))
import tiny_study
import tuning_study

from nightsmith.trainer import runfolder


def bench(study: str, folder: Path) -> AbstractContextManager[tiny_study.Bench]:
    """A bench whose planner has one answer for each question; a question that is asked again has the same answer."""
    if study == "sft":
        answers = (tuning_study.reading(), {"t": [tuning_study.ANOTHER]}, {"t": [tuning_study.STOP]})
        return tuning_study.bench(folder, *answers, by_content=True)
    first = {"t": [tiny_study.LOWER, tiny_study.RAISE]}
    return tiny_study.bench(
        folder, tiny_study.reading(tiny_study.GOAL), first, {"t": [tiny_study.STOP]}, by_content=True
    )


GOALS = {"pretrain": tiny_study.GOAL, "sft": tuning_study.GOAL}
"""What is run: from scratch, or a fine-tuning in two stages."""
FOLDER = "study"
"""The same for every run: a row's id, and so the order of the rows, holds the name of its table's folder."""


def facts(place: tiny_study.Bench) -> dict[str, Any]:
    """What must not depend on kills: outcome, decisions, number of jobs, weights."""
    view = place.show()
    results = [json.loads((folder / "result.json").read_text()) for folder in place.jobs]
    jobs = sorted((result["status"], result["checkpoint_digest"]) for result in results)
    decisions = {trial["number"]: trial["decision"] for trial in view["trials"]}
    return {"outcome": view["outcome"], "decisions": decisions, "jobs": jobs}


def disturbed(study: str, folder: Path, at_s: float, victim: str) -> tuple[dict[str, Any], int, str]:
    """Run the study, kill the victim after `at_s` seconds, go on to the end as a person would."""
    with bench(study, folder) as place:
        agent = place.start("run", GOALS[study], "--yes", "--json")
        time.sleep(at_s)
        if victim == "agent":
            os.kill(agent.pid, signal.SIGKILL)
            agent.wait()
            again = ("resume", "s1") if "trials" in place.show() else ("run", GOALS[study])
            ended = place.run(*again, "--yes", "--json")
            return facts(place), ended.returncode, f"then {again[0]} {ended.stderr[-200:]}".strip()
        killed = kill_worker(agent, place.workspace)
        errors = agent.communicate(timeout=600)[1]
        return facts(place), agent.returncode, f"{killed} {errors[-200:]}".strip()


def kill_worker(agent: "subprocess.Popen[str]", workspace: Path) -> str:
    """Kill -9 a worker of the study, or the next one to start. Workers live in sessions of their own."""
    while agent.poll() is None:
        if workers := [newest_claim(folder).pid for folder in workspace.glob("runs/*") if is_running(folder)]:
            os.kill(random.choice(workers), signal.SIGKILL)
            return f"1 of {len(workers)} workers killed"
        time.sleep(0.05)
    return "no worker was left"


def is_running(folder: Path) -> bool:
    """Whether a process holds the job's lock, which only claimed attempts may be asked for."""
    return (folder / "claim-1.json").exists() and runfolder.is_locked(folder)


def newest_claim(folder: Path) -> runfolder.Claim:
    """Which process took the newest attempt."""
    claims = (runfolder.Claim.model_validate_json(path.read_bytes()) for path in folder.glob("claim-*.json"))
    return max(claims, key=lambda claim: claim.attempt)


def main() -> int:
    """Measure and print one line a moment; exit 1 where any differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=sorted(GOALS), default="pretrain")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="go on from this moment")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        started = time.monotonic()
        with bench(args.study, root / "undisturbed" / FOLDER) as place:
            code = place.run("run", GOALS[args.study], "--yes", "--json").returncode
            expected = facts(place)
        wall_s = time.monotonic() - started
        print(f"undisturbed: {wall_s:.0f} s, exit {code}, {expected['outcome']} {expected['decisions']}", flush=True)
        rows = []
        for number in range(args.first, args.moments):
            at_s = wall_s * (number + 0.5) / args.moments
            victim = "agent" if number % 2 == 0 else "worker"
            found, ended, note = disturbed(args.study, root / f"run{number}" / FOLDER, at_s, victim)
            same = found == expected and ended == code
            rows.append({"at_s": round(at_s, 1), "victim": victim, "same": same, "exit": ended, "note": note})
            print(f"{at_s:6.1f} s  {victim:6}  {'same' if same else f'DIFFERS {found}'}  {note}", flush=True)
    same = sum(row["same"] for row in rows)
    print(f"{same} of {len(rows)} as undisturbed")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return int(same != len(rows))


if __name__ == "__main__":
    raise SystemExit(main())
