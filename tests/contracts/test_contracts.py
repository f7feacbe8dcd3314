import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def properties(schema: dict) -> list[tuple[str, dict]]:
    objects = [schema, *schema.get("$defs", {}).values()]
    return [(f"{o.get('title')}.{name}", field) for o in objects for name, field in o.get("properties", {}).items()]


@pytest.mark.parametrize("name", generate.CONTRACTS)
def test_every_field_of_a_contract_is_described(name):
    schema = json.loads(generate.schema(generate.CONTRACTS[name]))
    undescribed = [field for field, content in properties(schema) if not content.get("description")]
    assert undescribed == []


@pytest.mark.parametrize("name", generate.CONTRACTS)
def test_every_object_of_a_contract_is_closed(name):
    schema = json.loads(generate.schema(generate.CONTRACTS[name]))
    objects = [o for o in [schema, *schema.get("$defs", {}).values()] if o.get("type") == "object"]
    assert all(o.get("additionalProperties") is False for o in objects)


def test_the_published_schemas_and_graph_are_those_of_the_code():
    assert [str(path) for path, text in generate.generated().items() if path.read_text() != text] == []


def test_help_is_quick_to_import_and_loads_nothing_heavy():
    code = (
        "import sys, nightsmith.agent.cli; "
        "heavy = {'torch', 'transformers', 'mlflow', 'langgraph', 'scipy', 'optuna', 'duckdb', 'pyarrow', 'trl'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_agent_and_its_graph_never_load_torch():
    code = "import sys, nightsmith.agent.graph, nightsmith.agent.session; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
