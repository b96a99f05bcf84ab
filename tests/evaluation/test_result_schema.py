"""The documented schema of result.json is the one that is written."""

import json

from clippy_cli.evaluation.result import Document
from tests.conftest import REPOSITORY

SCHEMA_FILE = REPOSITORY / "docs" / "result.schema.json"
REGENERATE = """Write it again, and name a new schema version where old files no longer fit:
python - <<'END' > docs/result.schema.json
import json
from clippy_cli.evaluation.result import Document
print(json.dumps(Document.model_json_schema(by_alias=True, mode="serialization"), indent=2))
END"""


def test_the_documented_schema_is_up_to_date():
    schema = Document.model_json_schema(by_alias=True, mode="serialization")
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == schema, REGENERATE
    assert schema["properties"]["schema"]["const"] == "clippy-result/1"
