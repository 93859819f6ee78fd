"""The manifest: one canonical JSON file that says what a revision is, and whose hash is its name.

Everything here takes and returns bytes and plain records. A manifest has a common part and one section, named by its pipeline.
It may carry keys beyond `COMMON` and `SECTIONS` (a later minor addition must not break an older reader); what these name must
be there and be of that shape, and an unknown `schema` number is refused.
"""

import re
from collections.abc import Mapping
from contextlib import contextmanager

from trademl.errors import RevisionError, UsageError
from trademl.files import canonical_json, digest, strict_json
from trademl.ship.contents import MAX_FILE_BYTES, MAX_FILES, check_file_name, entry_of
from trademl.ship.shapes import HEX16, HEX64, NUMBER, UTC, check_shape, expect, short

SCHEMA = 3
MIN_RUNTIME = "0.3.0"  # the lowest trademl that reads this schema
MAX_BYTES = 256 * 1024
LAST_SECOND = 253_402_300_799  # of the year 9999
TOLERANCE = 1e-5  # largest difference of a probability between the native models and the graph

_LINE = re.compile(r"[a-z]+-[a-z0-9.]+-[a-z0-9]+")
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")

_TENSOR = {"name": str, "dtype": re.compile("float64|float32|int64"), "shape": [(int, str)]}
_MODEL = {
    "name": str,
    "role": re.compile("[a-z][a-z_]*"),
    "file": str,
    "format": re.compile("onnx"),
    "opset": int,
    "sha256": HEX64,
    "input": _TENSOR,
    "outputs": [_TENSOR],
    "features": [{"name": str, "dtype": str, "lookback": int}],
    "feature_hash": HEX64,
    "classes": ([str], None),
    "members": [str],
}
COMMON = {
    "schema": (int, "major version of this table"),
    "pipeline": (re.compile("[a-z]+"), "market or trades; names the section"),
    "line": (_LINE, "pipeline-symbol-timeframe, such as market-btcusd-15min or trades-all-records; one store holds one"),
    "symbols": ([str], "as the settings name them"),
    "timeframe": (str, "of the bars; records where there are none"),
    "trained_at": (UTC, "when the run began to store, UTC"),
    "git_commit": ((str, None), "commit of the code; null outside a clone"),
    "dirty": ((bool, None), "whether the clone had uncommitted changes; null outside a clone"),
    "trademl_version": (str, "what trained it"),
    "min_runtime_version": (_VERSION, "oldest trademl that may load it: the first that reads this schema"),
    "python": (str, ""),
    "libraries": ({str: str}, "versions of what trained the models"),
    "models": (
        [_MODEL],
        "one entry a graph: its input and outputs (the first is the answer), its features in the order of the columns with their look-back "
        "in bars and a hash over them and their code, the ensembles inside; classes in the order of the columns, null for a value",
    ),
    "trained_together": (HEX16, "training_run_id, repeated inside every graph's metadata"),
    "parent": ((HEX16, None), "the revision that it continues or whose models it keeps"),
    "seed": (int, "of everything random in the training"),
    "lineage": (
        [{"kind": re.compile("[a-z_]+"), "name": str, "revision": (HEX16, None), "label_end_s": int, "rows": int}],
        "every ancestor fit with its latest label end, epoch seconds; never empty",
    ),
    "data": ({"rows": int, "first": UTC, "last": UTC, "sha256": HEX64}, "what it was trained on"),
    "split": ({"scheme": str, "purge": (str, int, float), "embargo": (str, int, float)}, "how windows were cut"),
    "metrics": ({str: object}, "what the report says"),
    "gate": (
        {
            "passed": bool,
            "reasons": [str],
            "sentence": str,
            "level": NUMBER,
            "checks": {"limits": {"passed": bool}},
            "terms": {"level": NUMBER, "min_trades": int, "number": int, "objections": [str]},
        },
        "the verdict that makes the revision approved or a candidate, the level it was judged at, and what was asked",
    ),
    "look": (
        {
            "number": int,
            "level": NUMBER,
            "family_level": NUMBER,
            "days": [int],
            "project": str,
            "hash": str,
            "record": str,
            "words": str,
            "standing": ({"passed": bool, "words": str, "sentence": str, "level": NUMBER}, None),
            "remarks": [str],
        },
        "its place in the project's chain of looks: the k-th recipe on these days, judged at which level, or the verdict that stands",
    ),
    "golden": (
        {"file": str, "rows": int, "tolerance": NUMBER},
        "rows that a reader replays, of every graph at least one and at most so many",
    ),
    "expires_at": ((UTC, None), "from then on it is neither activated nor loaded; null: never"),
    "files": (
        [{"name": str, "sha256": HEX64, "bytes": int}],
        "every file beside manifest.json, manifest.sig and model_compat.json, by name",
    ),
}
OPTIONAL = {  # of either pipeline; missing in revisions from before
    "explained": (
        ({"rows": int, "schema": int}, None),
        "judged rows kept, and schema of the SHAP summary beside them; null: made with --no-shap",
    ),
}
MARKET = {
    "position_model": (bool, "whether a position model was trained together with the signal"),
    "exchange": ((str, None), "exchange or broker of the bars"),
    "scaler": (({"sha256": HEX64, "n_features": int}, None), "bound to the models; null when none"),
    "label_spec": (
        {"hash": HEX64, "dynamic_sltp_required": bool},
        "the contract between labels and execution, all its fields and its hash",
    ),
    "round_step": (NUMBER, "the grid of round prices, price units; part of the signal's feature_hash"),
    "costs": ({str: NUMBER}, "what a trade was assumed to cost"),
    "news_covers_until": ((UTC, None), "last moment of the calendar; null without one"),
    "recipe": ({str: object}, "what makes the recipe this one and no other"),
    "decision": (
        {
            "rule": re.compile("expected_r|votes"),
            "worth": [[NUMBER]],
            "worth_shipped": [[NUMBER]],
            "judged_profile": int,
            "margins": {str: {"margin_r": NUMBER, "edge_found": bool}},
            "votes_gap": NUMBER,
            "exits_on": bool,
            "exit_probability": NUMBER,
            "min_bars_held": int,
        },
        "how probabilities become orders: mean R of side and class (judged, shipped), a margin for each profile, when a trade is left",
    ),
    "ensemble": ({str: object}, "parameters of the signal's models"),
    "warmstart": ({"start": str, "why": str, "generation": int}, "how the signal's training began"),
    "devices": ({str: object}, "where each model was trained"),
    "profiles": (
        [{"profile": int, "max_total_drawdown_pct": NUMBER, "published": bool, "verdict": str}],
        "risk heads with ceiling and verdict",
    ),
    "risk": ({"multiplier_min": NUMBER, "multiplier_max": NUMBER}, "bounds of the risk multiplier"),
}
_SPAN = {"start_s": int, "end_s": int}
_MARKET_SPLIT = {"embargo": int, "refits": [int], "windows": {"train": _SPAN, "tune": _SPAN, "select": _SPAN, "final": _SPAN}}
TRADES = {
    "recipe": ({str: object}, "what makes the recipe this one and no other: registry, filters, weights, label policy"),
    "assets": ([str], "of the training records; what the asset features know"),
    "excursion_unit": (re.compile("usd|pct"), "what the log's excursions were written in"),
    "trades": (int, "trades that were learned from"),
    "advice": (
        {
            "calibration": ([NUMBER], None),
            "threshold": (*NUMBER, None),
            "size_scale": (*NUMBER, None),
            "is_target_advised": bool,
            "is_stop_advised": bool,
            "withheld": {str: str},
        },
        "what answers are turned into advice by; null or false: withheld, and why",
    ),
    "devices": ({str: object}, "where the models were trained"),
}
SECTIONS = {"market": MARKET, "trades": TRADES}


def manifest_bytes(record: Mapping) -> bytes:
    """The canonical bytes of a record. Raises UsageError for what JSON cannot hold."""
    try:
        return canonical_json(record)
    except ValueError as refusal:
        raise UsageError(str(refusal)) from refusal


def revision_name(data: bytes) -> str:
    """First 16 hex of sha256 of the manifest's bytes."""
    return digest(data)[:16]


def training_run_id(inputs: Mapping) -> str:
    """First 16 hex of sha256 over the canonical JSON of what a training depends on.

    `inputs`: data hashes, settings, seed, feature and label spec hashes, parent, code version. Nothing random, no clock.
    """
    return digest(manifest_bytes(inputs))[:16]


def parse_manifest(data: bytes) -> dict:
    """A valid manifest from its bytes. Raises RevisionError; the bytes must be the canonical ones."""
    if len(data) > MAX_BYTES:
        raise RevisionError(f"manifest.json: {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        record = strict_json(data)
    except ValueError as refusal:
        raise RevisionError(f"manifest.json: {refusal}") from refusal
    if record.get("schema") != SCHEMA or type(record["schema"]) is not int:
        raise _other_schema(record.get("schema"))
    try:
        canonical = canonical_json(record)
    except ValueError as refusal:  # half a surrogate pair
        raise RevisionError(f"manifest.json: {refusal}") from refusal
    if canonical != data:
        raise RevisionError("manifest.json: not in canonical form (sorted keys, no spaces)")
    check_manifest(record)
    return record


class OldSchemaError(RevisionError):
    """A revision of an earlier trademl: kept, listed, and neither loaded nor continued."""


def _other_schema(schema: object) -> RevisionError:
    if type(schema) is int and 0 < schema < SCHEMA:
        return OldSchemaError(
            f"manifest.json: schema {schema}, written by an earlier trademl; this one reads schema {SCHEMA}. "
            "`trademl retrain` makes a new revision; this one is kept as it is"
        )
    return RevisionError(f"manifest.json: schema {short(schema)}; this trademl reads schema {SCHEMA}, a newer one may be needed")


def check_manifest(record: Mapping) -> None:
    """Raises RevisionError naming the first key that is missing, of another shape, or contradicts another."""
    _check_shapes(record, COMMON, "")
    _check_shapes(record, {key: shape for key, shape in OPTIONAL.items() if key in record}, "")
    pipeline = record["pipeline"]
    _expect(pipeline in SECTIONS, pipeline, "pipeline", f"one of {', '.join(SECTIONS)}")
    _expect(isinstance(record.get(pipeline), dict), record.get(pipeline), pipeline, "an object: the section of its pipeline")
    _check_shapes(record[pipeline], SECTIONS[pipeline], f"{pipeline}.")
    _check_sense(record)


def _check_shapes(record: Mapping, shapes: Mapping, where: str) -> None:
    for key, (shape, _) in shapes.items():
        if key not in record:
            raise RevisionError(f"manifest.json: {where}{key} is missing")
        _check(record[key], shape, f"{where}{key}")


def _check(value, shape, where: str) -> None:
    with _refusing():
        check_shape(value, shape, where)


def _expect(holds, value, where, rule) -> None:
    with _refusing():
        expect(holds, value, where, rule)


@contextmanager
def _refusing():
    """What does not hold is a fault of the manifest."""
    try:
        yield
    except ValueError as refusal:
        raise RevisionError(f"manifest.json: {refusal}") from None


def _check_sense(record: Mapping) -> None:
    """What the shapes cannot say: names are safe and unique, counts and dates agree, and models are among the files."""
    _check_files(record)
    _check_models(record)
    _check_line(record)
    _check_evidence(record)
    data, expires = record["data"], record["expires_at"]
    _expect(data["first"] <= data["last"], data["last"], "data.last", f"not before data.first {data['first']}")
    _expect(expires is None or expires > record["trained_at"], expires, "expires_at", f"a moment after trained_at {record['trained_at']}")
    if record["pipeline"] == "market":
        _check_market(record)


def _check_line(record: Mapping) -> None:
    symbols = record["symbols"]
    _expect(bool(symbols) and len(set(symbols)) == len(symbols), symbols, "symbols", "at least one, without repeats")
    market = symbols[0].lower() if record["pipeline"] == "market" else "all"
    line = f"{record['pipeline']}-{market}-{record['timeframe']}"
    _expect(record["line"] == line, record["line"], "line", f"{line}, by pipeline, symbols and timeframe")


def _check_market(record: Mapping) -> None:
    section, roles = record["market"], [model["role"] for model in record["models"]]
    _expect(set(roles) <= {"signal", "position", "risk"}, roles, "models", "roles signal, position and risk")
    _expect(roles.count("signal") == 1 and roles.count("position") <= 1, roles, "models", "one signal, at most one position")
    has_position = section["position_model"]
    _expect(has_position == ("position" in roles), has_position, "market.position_model", "whether models name one")
    _expect(len(record["symbols"]) == 1, record["symbols"], "symbols", "one: a market revision is of one symbol")
    width = len(model_of(record, "signal")["features"])
    scaled = width if section["scaler"] is None else section["scaler"]["n_features"]
    _expect(scaled == width, scaled, "market.scaler.n_features", f"the signal's {width} features")
    _check(record["split"], _MARKET_SPLIT, "split")
    _check_decision(section["decision"])
    signal = model_of(record, "signal")
    _expect(bool(signal["classes"]) and bool(signal["members"]), signal["classes"], "models signal", "classes and members")
    heads = {model["name"] for model in record["models"] if model["role"] == "risk"}
    for entry in section["profiles"]:
        has_graph = not entry["published"] or f"risk_p{entry['profile']}" in heads
        _expect(has_graph, entry["profile"], "market.profiles", "a graph risk_pN among models for each published profile N")


def _check_decision(decision: Mapping) -> None:
    where = "market.decision"
    for name in ("worth", "worth_shipped"):
        _expect([len(side) for side in decision[name]] == [3, 3], decision[name], f"{where}.{name}", "two sides with three classes")
    margins, held, leaves = decision["margins"], decision["min_bars_held"], decision["exit_probability"]
    _expect({"1", "2", "3", "4", "5"} <= set(margins), sorted(margins), f"{where}.margins", "a margin for each of the profiles 1 to 5")
    _expect(1 <= decision["judged_profile"] <= 5, decision["judged_profile"], f"{where}.judged_profile", "a profile, 1 to 5")
    _expect(held >= 1, held, f"{where}.min_bars_held", "1 or more")
    _expect(0 <= leaves <= 1, leaves, f"{where}.exit_probability", "0 to 1")


def model_of(record: Mapping, role: str) -> dict:
    """The entry of the first model of a role. RevisionError when there is none."""
    found = next((model for model in record["models"] if model["role"] == role), None)
    if found is None:
        raise RevisionError(f"manifest.json: models name no {role} model")
    return found


def _check_files(record: Mapping) -> None:
    names = [entry["name"] for entry in record["files"]]
    _expect(len(names) <= MAX_FILES, len(names), "files", f"at most {MAX_FILES} entries")
    _expect(names == sorted(set(names)), names, "files", "sorted by name, without repeats")
    for entry in record["files"]:
        check_file_name(entry["name"])
        _expect(0 <= entry["bytes"] <= MAX_FILE_BYTES, entry["bytes"], f"files {entry['name']}", f"0 to {MAX_FILE_BYTES:,} bytes")


def _check_models(record: Mapping) -> None:
    files = {entry["name"]: entry["sha256"] for entry in record["files"]}
    for model in record["models"]:
        where, listed, classes = f"models {model['name']}", files.get(model["file"]), model["classes"]
        _expect(listed == model["sha256"], model["sha256"], f"{where} sha256", f"that of {model['file']} in files")
        unique = classes is None or len(classes) == len(set(classes)) > 1
        _expect(unique, classes, f"{where} classes", "null, or two and more, without repeats")
        _check_tensors(model, where)
    names = [model["name"] for model in record["models"]]
    _expect(bool(names) and len(set(names)) == len(names), names, "models", "at least one, names without repeats")
    strangers = sorted({name for name in files if name.endswith(".onnx")} - {model["file"] for model in record["models"]})
    _expect(not strangers, strangers, "files", "only graphs that models name")


def _check_tensors(model: Mapping, where: str) -> None:
    """A table of the model's features goes in; its answer comes first, and others have names of their own."""
    asked, answers, names = model["input"], model["outputs"], [feature["name"] for feature in model["features"]]
    _expect(asked["dtype"] != "int64", asked["dtype"], f"{where} input.dtype", "float64 or float32")
    _expect(_width(asked) == len(names) > 0, asked["shape"], f"{where} input.shape", f"[rows, {len(names)}]: a column for each feature")
    _expect(len(set(names)) == len(names), names, f"{where} features", "names without repeats")
    given = [answer["name"] for answer in answers]
    _expect(bool(given) and len(set(given)) == len(given), given, f"{where} outputs", "at least one, names without repeats")
    columns, classes = _width(answers[0]), model["classes"]
    _expect(columns > 0, answers[0]["shape"], f"{where} outputs[0].shape", "[rows, columns] with columns above 0")
    fits = classes is None or columns == len(classes)
    _expect(fits, columns, f"{where} outputs[0].shape", "a column for each class")


def _width(tensor: Mapping) -> int:
    """Columns of a table; 0 where the shape is not one of a table."""
    shape = tensor["shape"]
    return shape[1] if len(shape) == 2 and type(shape[1]) is int and shape[1] > 0 else 0


def _check_evidence(record: Mapping) -> None:
    """What a judgement rests on: golden rows as strict as the product's own, and a lineage."""
    golden, lineage = record["golden"], record["lineage"]
    files = [entry["name"] for entry in record["files"]]
    _expect(golden["file"] in files, golden["file"], "golden.file", "one of files")
    _expect(golden["rows"] > 0, golden["rows"], "golden.rows", "above 0")
    _expect(0 < golden["tolerance"] <= TOLERANCE, golden["tolerance"], "golden.tolerance", f"above 0, at most {TOLERANCE:g}")
    _expect(bool(lineage), lineage, "lineage", "at least one fit: without it no window counts as out of sample")
    for number, fit in enumerate(lineage):
        where = f"lineage[{number}]"
        _expect(0 <= fit["label_end_s"] <= LAST_SECOND, fit["label_end_s"], f"{where}.label_end_s", "epoch seconds")
        _expect(bool(fit["name"]) and fit["rows"] > 0, fit["rows"], f"{where}.rows", "above 0, with a name")


def complete_manifest(files: Mapping[str, bytes], manifest: Mapping) -> dict:
    """`manifest` with `files` and each model's `sha256` filled in from the bytes. Raises RevisionError for what breaks the contract."""
    listed = [entry_of(name, files[name]) for name in sorted(files)]
    hashes = {entry["name"]: entry["sha256"] for entry in listed}
    models = []
    _check(manifest.get("models"), [{"file": str}], "models")
    for model in manifest["models"]:
        if model["file"] not in hashes:
            raise RevisionError(f"manifest.json: models name {model['file']!r}, which is not among the files given: {', '.join(hashes)}")
        models.append(dict(model) | {"sha256": hashes[model["file"]]})
    record = dict(manifest) | {"files": listed, "models": models}
    check_manifest(record)
    return record


def compat_record(manifest: Mapping, manifest_sha256: str) -> dict:
    """What `model_compat.json` says: the original's keys where they have a meaning, and which revision it speaks of."""
    of_pipeline = _market_compat(manifest) if manifest["pipeline"] == "market" else {"models": [m["name"] for m in manifest["models"]]}
    return of_pipeline | {
        "pipeline": manifest["pipeline"],
        "line": manifest["line"],
        "trained_at": manifest["trained_at"],
        "trained_together": manifest["trained_together"],
        "revision": manifest_sha256[:16],
        "manifest_sha256": manifest_sha256,
    }


def _market_compat(manifest: Mapping) -> dict:
    signal, section = model_of(manifest, "signal"), manifest["market"]
    return {
        "feature_count": len(signal["features"]),
        "features": [feature["name"] for feature in signal["features"]],
        "feature_hash": signal["feature_hash"],
        "models": signal["members"],
        "position_model": section["position_model"],
        "label_spec_hash": section["label_spec"]["hash"],
    }


def differences(one: Mapping, other: Mapping) -> list[tuple[str, object, object]]:
    """(dotted key, value in `one`, value in `other`) wherever two manifests differ; None stands for a missing key."""
    left, right = dict(_leaves(one)), dict(_leaves(other))
    return [(key, left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]


def _leaves(value, where: str = ""):
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        names = [_name_of(item) for item in value]
        for number, item in enumerate(value):
            alone = names[number] and names.count(names[number]) == 1
            yield from _leaves(item, f"{where}.{names[number] if alone else f'{names[number]}[{number}]'}")
    else:
        yield where, value


def _name_of(item) -> str:
    """What a list's item is called: an ancestor's fit by its revision too, or a child's own would be compared with its parent's."""
    if not isinstance(item, dict):
        return ""
    if item.get("name") and item.get("revision"):
        return f"{item['name']} of {item['revision']}"
    return str(item.get("name") or (f"profile {item['profile']}" if "profile" in item else ""))


def field_table() -> str:
    """The manifest's fields as a markdown table; those of a section behind its name."""
    fields = COMMON | {f"{name}.{key}": of for name, section in SECTIONS.items() for key, of in section.items()}
    rows = [f"| `{key}` | {_kind(shape)} | {meaning} |" for key, (shape, meaning) in fields.items()]
    return "\n".join(["| field | shape | meaning |", "|---|---|---|", *rows])


def _kind(shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(_kind(one) for one in shape)
    if isinstance(shape, list):
        return f"list of {_kind(shape[0])}"
    if isinstance(shape, dict):
        return "{" + ", ".join("…" if key is str else f"{key}: {_kind(one)}" for key, one in shape.items()) + "}"
    if isinstance(shape, re.Pattern):
        named = {HEX64: "64 hex", HEX16: "16 hex", UTC: "UTC with Z", _LINE: "line", _VERSION: "version"}
        return named.get(shape, shape.pattern.replace("|", ", "))
    return "null" if shape is None else shape.__name__
