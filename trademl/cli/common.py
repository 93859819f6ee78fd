"""What every command shares: JSON on standard output, one sentence on standard error."""

import json
import sys


def wants_json() -> bool:
    """Whether the command was called with --json."""
    return "--json" in sys.argv[1:]


def emit(record) -> None:
    """One JSON object on standard output."""
    from trademl.runs import jsonable

    print(json.dumps(jsonable(record), indent=2, ensure_ascii=False))


def fail(sentence: str, code: int, **fields) -> None:
    """Say why and leave; under --json the object says it too."""
    if wants_json():
        emit({"status": "failed", "exit": int(code), "error": sentence} | fields)
    print(f"trademl: {sentence}", file=sys.stderr)
    sys.exit(int(code))


def table(rows: list[tuple], header: tuple = ()) -> None:
    """Rows in aligned columns, plain text."""
    cells = [tuple(map(str, row)) for row in ([header] if header else []) + list(rows)]
    if cells:
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
