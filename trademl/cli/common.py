"""What every command shares: JSON on standard output, one sentence on standard error."""

import json
import os
import sys

RETRAIN_KEYS = ("run_id", "revision", "status", "exit", "gate", "seconds", "report", "metrics")  # in every object of `retrain --json`


def wants_json() -> bool:
    """Whether the command was called with --json."""
    return "--json" in sys.argv[1:]


def emit(record) -> None:
    """One JSON object on standard output."""
    from trademl.files import jsonable

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(jsonable(record), indent=2, ensure_ascii=not utf8))


def fail(sentence: str, code: int, *, status: str = "failed", **fields) -> None:
    """Say why and leave; under --json the object says it too."""
    if wants_json():
        promised = dict.fromkeys(RETRAIN_KEYS) if sys.argv[1] == "retrain" else {}
        emit(promised | fields | {"status": status, "exit": int(code), "error": sentence})
    print(f"trademl: {sentence}", file=sys.stderr)
    leave(code)


def leave(code: int) -> None:
    """End the process with this code, also when nobody reads standard output any more (`trademl ... | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(int(code))


def print_anywhere() -> None:
    """A terminal that cannot show a character gets its escape instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def table(rows: list[tuple], header: tuple = ()) -> None:
    """Rows in aligned columns, plain text."""
    from trademl.display import table_lines

    for line in table_lines([*([header] if header else []), *rows]):
        print(line)
