"""The bot's promise: nothing loads unproven, nothing is decided on bad bars, and what is decided is what the batch decides."""

import ast
import json
import logging
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from live import Recorded, close_of, decide, ready

from trademl.bot import (
    AccountError,
    AccountState,
    Bars,
    Calendar,
    Expect,
    LoadCheck,
    LoadError,
    Mode,
    Reason,
    TailError,
    TailFault,
    load_approved,
    read_log,
)
from trademl.bot.policy import Policy, risk_head_of
from trademl.clock import DAY_S
from trademl.errors import BadDataError, RevisionError, UsageError
from trademl.files import npz_bytes, read_npz
from trademl.market.definitions import NEWS
from trademl.market.specs import LabelSpec
from trademl.risk.state import equity_state
from trademl.ship.revision import Revision
from trademl.ship.signing import KeyFolder, PublicKey
from trademl.ship.store import Store

STRANGER = str(PublicKey(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
EXPECT = Expect("SYNTH")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = KeyFolder(tmp_path_factory.mktemp("user") / "keys")
    folder.create()
    return folder


@pytest.fixture(scope="module")
def whole(small_run):
    """The small run's revision as (files, manifest), ready to decide."""
    return ready(small_run.stored.revision)


@pytest.fixture(scope="module")
def stored(whole, keys, tmp_path_factory):
    """A signed store whose only revision is active."""
    store = Store(tmp_path_factory.mktemp("live") / "models", keys.trust())
    store.activate(store.write(*whole).name, "a test")
    return store


def load(store, keys, **changes):
    options = {"profile": 3, "expect": EXPECT} | changes
    return load_approved(store.models_dir, [str(keys.signer())], **options)


@pytest.fixture(scope="module")
def loaded(stored, keys):
    return load(stored, keys)


@pytest.fixture
def predictor(loaded):
    loaded._last = None
    return loaded


@pytest.fixture(scope="module")
def market(small_run):
    return Recorded.of(small_run.inputs)


# ---------------------------------------------------------------- a decision


def test_a_decision_says_everything_that_an_order_needs(predictor, market, small_run):
    decision = decide(predictor, market)
    spec = small_run.case.rows.spec
    assert (decision.revision, decision.line, decision.profile, decision.mode) == (predictor.revision, "market-synth-15min", 3, Mode.LIVE)
    assert (decision.stop_distance, decision.target_distance) == (spec.sl_atr * decision.atr, spec.tp_atr * decision.atr)
    assert decision.effective_risk == pytest.approx(0.015 * decision.size_multiplier)
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert decision.votes.keys() == {"rf", "xgb", "lgb"}
    assert decision.bar_s == market.bars.time[-1]
    assert decision.may_trade == (decision.side != 0)
    assert decision.in_range is (decision.far_features == ())
    assert decision.position is None


def test_a_frame_a_mapping_and_arrays_decide_alike(predictor, market, small_run):
    tail = market.tail()
    frame = small_run.inputs.bars.iloc[-2_000:]
    mapping = {name: column.tolist() for name, column in zip(tail._fields, tail, strict=True)} | {"symbol": "SYNTH"}
    wanted = decide(predictor, market, tail)
    for given in (frame, mapping):
        assert predictor.predict(given, market.calendar, market.account, now=close_of(tail)) == wanted


def test_exits_are_advised_only_where_they_are_on(whole, keys, tmp_path, market, predictor):
    files, manifest = whole
    section = manifest["market"]
    off = manifest | {"market": section | {"decision": section["decision"] | {"exits_on": False}}}
    store = Store(tmp_path / "models", keys.trust())
    store.activate(store.write(files, off).name, "a test")
    held = {"side": 1, "entry_price": 100.0, "stop_distance": 2.0, "decided_bar_s": int(market.bars.time[-5])}
    advice = decide(load(store, keys), market, open_position=held).position
    assert (advice.exit_probability, advice.leave, advice.bars_held) == (None, False, 4)
    assert decide(predictor, market, open_position=held).position.exit_probability is not None
    with pytest.raises(AccountError, match="not the open of a bar"):
        decide(predictor, market, open_position=held | {"decided_bar_s": int(market.bars.time[-1]) + 900})
    with pytest.raises(AccountError, match="side must be"):
        decide(predictor, market, open_position=held | {"side": 0})
    with pytest.raises(AccountError, match="needed: side"):
        decide(predictor, market, open_position={"side": 1})


# ---------------------------------------------------------------- bars that nothing is decided on


def without(tail, rows):
    return Bars(*(np.delete(column, rows) for column in tail))


def changed(tail, **columns):
    return tail._replace(**columns)


TAILS = {
    "a hole": (lambda t: without(t, slice(1_500, 1_504)), TailFault.HOLE, "4 of the last"),
    "one lost bar": (lambda t: without(t, 1_990), TailFault.HOLE, "1 of the last"),
    "too short": (lambda t: Bars(*(c[-1_933:] for c in t)), TailFault.SHORT, "look back over 1,934"),
    "nothing": (lambda t: Bars(*(c[:0] for c in t)), TailFault.SHORT, "0 given"),
    "hours": (lambda t: changed(t, time=t.time[-1] - 3600 * np.arange(1_999, -1, -1)), TailFault.TIMEFRAME, "3600 s apart"),
    "five minutes": (lambda t: changed(t, time=t.time[-1] - 300 * np.arange(1_999, -1, -1)), TailFault.TIMEFRAME, "300 s apart"),
    "milliseconds": (lambda t: changed(t, time=t.time * 1000), TailFault.CLOCK, "divided by 1000"),
    "floats": (lambda t: changed(t, time=t.time.astype(float)), TailFault.VALUES, "whole epoch seconds"),
    "repeated": (lambda t: changed(t, time=np.append(t.time[:-1], t.time[-2])), TailFault.VALUES, "repeated"),
    "off the grid": (lambda t: changed(t, time=t.time + 60), TailFault.VALUES, "quarter of an hour"),
    "NaN": (lambda t: changed(t, close=np.append(t.close[:-1], np.nan)), TailFault.VALUES, "close is nan"),
    "a price of zero": (lambda t: changed(t, low=np.append(t.low[:-1], 0.0)), TailFault.VALUES, "low is 0.0"),
    "unequal": (lambda t: changed(t, volume=t.volume[1:]), TailFault.VALUES, "equally long"),
    "another symbol": (lambda t: t._asdict() | {"symbol": "BTCUSD"}, TailFault.SYMBOL, "bars of BTCUSD"),
    "rows of two symbols": (
        lambda t: t._asdict() | {"symbol": np.where(np.arange(2_000) == 7, "BTCUSD", "SYNTH")},
        TailFault.SYMBOL,
        "bars of BTCUSD",
    ),
    "a frame of another symbol": (lambda t: pd.DataFrame(t._asdict()).assign(symbol="synth"), TailFault.SYMBOL, "bars of synth"),
    "no bars at all": (lambda t: 5, TailFault.VALUES, "a int, expected Bars"),
    "no volume": (lambda t: {name: x for name, x in t._asdict().items() if name != "volume"}, TailFault.VALUES, "volume missing"),
    "no time": (lambda t: {name: x for name, x in t._asdict().items() if name != "time"}, TailFault.VALUES, "time missing"),
}


@pytest.mark.fault
@pytest.mark.parametrize("name", TAILS)
def test_bars_that_cannot_be_decided_on_are_refused_by_name(predictor, market, name):
    spoil, fault, said = TAILS[name]
    tail = market.tail()
    with pytest.raises(TailError, match=said) as refused:
        decide(predictor, market, spoil(tail), now=close_of(tail, 61 if name == "off the grid" else 1))
    assert refused.value.fault is fault


@pytest.mark.fault
@pytest.mark.parametrize(
    ("seconds", "fault"),
    [(-1, None), (-6, TailFault.FORMING), (-890, TailFault.FORMING), (-906, TailFault.CLOCK), (900, None), (901, TailFault.STALE)],
)
def test_the_clock_against_the_last_close(predictor, market, seconds, fault):
    tail = market.tail()
    if fault is None:
        assert decide(predictor, market, tail, now=close_of(tail, seconds)).bar_s == tail.time[-1]
        return
    with pytest.raises(TailError) as refused:
        decide(predictor, market, tail, now=close_of(tail, seconds))
    assert refused.value.fault is fault


def test_a_moment_without_a_zone_is_refused_and_another_zone_is_not(predictor, market):
    tail = market.tail()
    with pytest.raises(TailError, match="no time zone"):
        decide(predictor, market, tail, now=close_of(tail).replace(tzinfo=None))
    from datetime import timezone

    there = close_of(tail).astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert decide(predictor, market, tail, now=there).decided_at == close_of(tail)


@pytest.mark.fault
def test_prices_that_are_not_those_of_the_last_call_are_another_symbols(predictor, market):
    first, second = market.tail(8_700), market.tail(8_701)
    decide(predictor, market, first)
    doubled = second._replace(**{name: 2 * getattr(second, name) for name in ("open", "high", "low", "close")})
    with pytest.raises(TailError, match="another symbol's") as refused:
        decide(predictor, market, doubled)
    assert refused.value.fault is TailFault.SYMBOL
    assert Reason.REVISED_BARS not in decide(predictor, market, second).reasons
    third = market.tail(8_702)
    revised = third._replace(close=np.append(third.close[:-5], third.close[-5:] * [1.0001, 1, 1, 1, 1]))
    assert Reason.REVISED_BARS in decide(predictor, market, revised).reasons


def test_a_market_with_breaks_may_have_some(stored, keys, market):
    tail = without(market.tail(bars=2_100), slice(1_500, 1_590))
    shut = load(stored, keys, expect=replace(EXPECT, missing_share=0.3))
    assert decide(shut, market, tail).probabilities is not None


# ---------------------------------------------------------------- the calendar


@pytest.mark.fault
@pytest.mark.parametrize(
    ("calendar", "reason"),
    [
        (None, Reason.NO_CALENDAR),
        ([], Reason.STALE_CALENDAR),
        (lambda m: m.calendar.times[m.calendar.times < m.bars.time[-1] - DAY_S], Reason.STALE_CALENDAR),
        (lambda m: replace(m.calendar, covers_until=int(m.bars.time[-1]) + 900 + DAY_S - 1), Reason.STALE_CALENDAR),
    ],
)
def test_a_calendar_that_does_not_reach_is_unknown_and_never_no_news(predictor, market, calendar, reason):
    decision = decide(predictor, market, news_times=calendar(market) if callable(calendar) else calendar)
    assert decision.reasons[0] is reason
    assert Reason.UNKNOWN_FEATURES in decision.reasons
    assert (decision.side, decision.probabilities, decision.expected_r, decision.votes) == (0, None, None, None)
    assert decision.stop_distance > 0


@pytest.mark.fault
@pytest.mark.parametrize(
    ("calendar", "said"),
    [
        (lambda times: times * 1000, r"\d{13}\], expected .* 2000 to 2100"),  # taken for seconds it would know no event and cover all days
        (lambda times: Calendar(times, (), 10**12), "covers_until: .10{12}."),
        (lambda times: Calendar(times, times * 1000), "all_day_times"),
        (lambda times: Calendar(times, (), datetime(2026, 1, 1, tzinfo=UTC)), "covers_until: .*dtype object"),
        (lambda times: np.array(["NaT"], "M8[s]"), "expected a list of epoch seconds"),
        (lambda times: times[None], "expected a list"),
        (lambda times: ["2024-04-12"], "dtype <U10"),
        (lambda times: 5, "no len"),
    ],
)
def test_a_calendar_in_another_unit_is_refused_and_never_no_news(predictor, market, calendar, said):
    with pytest.raises(BadDataError, match=said):
        decide(predictor, market, news_times=calendar(market.calendar.times))


def test_models_that_were_trained_without_a_calendar_need_none(whole, keys, tmp_path, market):
    files, manifest = whole
    store = Store(tmp_path / "models", keys.trust())
    bare = manifest | {"market": manifest["market"] | {"news_covers_until": None}}
    store.activate(store.write(files, bare).name, "a test")
    predictor = load(store, keys)
    assert decide(predictor, market, news_times=None) == decide(predictor, market)
    assert decide(predictor, market, news_times=None).probabilities is not None
    assert len(NEWS) == 4


# ---------------------------------------------------------------- heads and the account


def test_a_head_sizes_by_the_account(predictor, market, stored, keys):
    decision = decide(predictor, market)
    revision = stored.active()
    losing = predictor.replay_account([{"net_r": -1.0, "balance_after": 10_000.0 - 150 * k} for k in range(1, 9)], 10_000.0)
    state = equity_state([-1.0] * 8, equity=8_800.0, start=10_000.0, peak=10_000.0, atr_norm=decision.atr / market.bars.close[-1])
    sized = decide(predictor, market, account_state=losing.record())
    assert sized.size_multiplier == risk_head_of(revision, 3)(state)
    assert sized.side == decision.side
    off = decide(load(stored, keys, risk_enabled=False), market, account_state=None)
    assert (off.size_multiplier, off.effective_risk) == (1.0, 0.015)
    assert Reason.HEAD_OFF in off.reasons
    with pytest.raises(AccountError, match="give account_state"):
        decide(predictor, market, account_state=None)


def with_profiles(whole, change):
    files, manifest = whole
    section = manifest["market"]
    return files, manifest | {"market": section | {"profiles": change(section["profiles"])}}


@pytest.mark.fault
def test_an_unpublished_head_counts_as_one_unless_the_operator_insists(whole, keys, tmp_path, market, caplog):
    unpublished = with_profiles(whole, lambda entries: [entry | {"published": False} for entry in entries])
    store = Store(tmp_path / "models", keys.trust())
    store.activate(store.write(*unpublished).name, "a test")
    plain = decide(load(store, keys), market, account_state=None)
    assert plain.size_multiplier == 1.0
    assert Reason.UNPUBLISHED_HEAD not in plain.reasons
    with caplog.at_level(logging.WARNING, "trademl.bot"):
        insisting = load(store, keys, use_unpublished=True)
    assert "unpublished head" in caplog.text
    for _ in range(2):  # each time
        assert Reason.UNPUBLISHED_HEAD in decide(insisting, market).reasons
    assert decide(insisting, market).size_multiplier == risk_head_of(store.active(), 3, use_unpublished=True)(
        market.account.features(plain.atr / market.bars.close[-1])
    )


@pytest.mark.fault
@pytest.mark.parametrize("is_listed", [False, True], ids=["not listed", "listed, unpublished and not trained"])
def test_a_missing_head_is_one_with_one_warning(whole, keys, tmp_path, market, caplog, is_listed):
    store = Store(tmp_path / "models", keys.trust())
    files, manifest = with_profiles(whole, lambda entries: entries[:2] + is_listed * [entries[2] | {"published": False}])
    manifest |= {"models": [model for model in manifest["models"] if model["name"] != "risk_p3"]}
    store.activate(store.write({name: data for name, data in files.items() if name != "risk_p3.onnx"}, manifest).name, "a test")
    with caplog.at_level(logging.WARNING, "trademl.bot"):
        predictor = load(store, keys, use_unpublished=True)
        decisions = [decide(predictor, market, account_state=None) for _ in range(3)]
    assert caplog.text.count("no risk head for profile 3") == 1
    assert {d.size_multiplier for d in decisions} == {1.0}
    assert all(Reason.NO_HEAD in d.reasons for d in decisions)


@pytest.mark.contract
def test_an_account_survives_a_restart(predictor, tmp_path):
    trades = [{"net_r": r, "balance_after": 10_000 + 100 * k} for k, r in enumerate([1.2, -1.0, 0.4] * 5)]
    account = predictor.replay_account(trades, start=10_000.0)
    account.write(tmp_path / "account.json")
    assert AccountState.read(tmp_path / "account.json") == account
    assert json.loads((tmp_path / "account.json").read_bytes()).keys() == {
        "schema", "line", "profile", "start", "equity", "peak", "closed_net_r",
    }  # fmt: skip
    assert account == predictor.replay_account(trades[7:], 10_000.0).after(0, 11_400).__class__(
        account.line, 3, 10_000.0, 11_400.0, 11_400.0, account.closed_net_r
    )
    halted = predictor.replay_account([{"net_r": -1.0, "balance_after": 6_000.0}], 10_000.0)
    assert halted.peak == 6_000.0  # 40 % below the peak is profile 3's halt: a new peak, as in the replay that heads learn from
    assert len(predictor.replay_account(trades * 40, 10_000.0).closed_net_r) == 500


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": 4}, "profile 4; loaded is"),
        ({"line": "market-btcusd-15min"}, "account of market-btcusd-15min"),
        ({"schema": 2}, "schema = 2"),
        ({"equity": "10000"}, "equity = '10000'"),
        ({"equity": float("nan")}, "equity = nan"),
        ({"start": 0}, "start = 0"),
        ({"start": 10**400}, "start = 10{20}"),
        ({"closed_net_r": [10**400]}, r"closed_net_r\[0\] = 10{20}"),
        ({"peak": 1.0}, "below equity"),
        ({"closed_net_r": [1.0, None]}, r"closed_net_r\[1\] = None"),
        ({"closed_net_r": "1.0"}, "a list"),
        ({"more": 1}, "unknown .'more'."),
    ],
)
def test_an_account_that_is_not_this_ones_is_refused(predictor, market, change, said):
    with pytest.raises(AccountError, match=said):
        decide(predictor, market, account_state=market.account.record() | change)


@pytest.mark.fault
def test_a_damaged_account_file_is_refused(tmp_path, predictor):
    (tmp_path / "account.json").write_bytes(b'{"schema": 1, "schema": 1}')
    with pytest.raises(AccountError, match="repeated"):
        AccountState.read(tmp_path / "account.json")
    with pytest.raises(AccountError, match="No such file"):
        AccountState.read(tmp_path / "none.json")
    with pytest.raises(AccountError, match="trade 0"):
        predictor.replay_account([{"net_r": 1.0}], 10_000.0)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entry_price": float("inf")}, "finite"),
        ({"stop_distance": float("nan")}, "finite"),
        ({"decided_bar_s": float("nan")}, "finite"),
        ({"decided_bar_s": "2024"}, "finite"),
        ({"side": np.array([1, 1])}, "finite"),
        ({"side": 2}, "side must be"),
        ({"stop_distance": 0.0}, "above 0"),
        ({"decided_bar_s": 900}, "not the open of a bar"),
        ({"lots": 1.0}, "unexpected"),
    ],
)
def test_an_open_position_that_cannot_be_is_refused(predictor, market, change, said):
    held = {"side": 1, "entry_price": 100.0, "stop_distance": 1.0, "decided_bar_s": int(market.bars.time[-5])}
    assert decide(predictor, market, open_position=held).position.bars_held == 4
    with pytest.raises(AccountError, match=said):
        decide(predictor, market, open_position=held | change)


def test_an_account_holds_as_many_trades_as_its_file_may(predictor, tmp_path):
    many = replace(AccountState.opened(predictor.line, 3, 10_000.0), closed_net_r=np.linspace(-1, 1, 9_000).tolist())
    many.write(tmp_path / "account.json")
    assert AccountState.read(tmp_path / "account.json") == many
    assert len(many.closed_net_r) == 500
    assert many.closed_net_r[-1] == 1.0


# ---------------------------------------------------------------- what loads


def spoiled(files, manifest, **section):
    return files, manifest | {"market": manifest["market"] | section}


def models(manifest, **signal):
    return manifest | {"models": [model | (signal if model["role"] == "signal" else {}) for model in manifest["models"]]}


def narrower(files, manifest):
    signal = next(model for model in manifest["models"] if model["role"] == "signal")
    fewer = models(manifest, features=signal["features"][:-1], input=signal["input"] | {"shape": ["N", 54]})
    return spoiled(files, fewer, scaler=None)


def swapped(files, manifest):
    features = next(model for model in manifest["models"] if model["role"] == "signal")["features"]
    return files, models(manifest, features=[features[1], features[0], *features[2:]])


def renamed(files, manifest):
    features = next(model for model in manifest["models"] if model["role"] == "signal")["features"]
    return files, models(manifest, features=[features[0] | {"name": "atr_pct_2"}, *features[1:]])


def other_dtype(files, manifest):
    signal = next(model for model in manifest["models"] if model["role"] == "signal")
    return files, models(manifest, input=signal["input"] | {"dtype": "float32"})


def other_scaler(files, manifest):
    narrow = {name: part[:-1] for name, part in read_npz(files["native/scaler.npz"]).items()}
    return files | {"native/scaler.npz": npz_bytes(narrow)}, manifest


def of(symbol, timeframe):
    def change(files, manifest):
        line = f"market-{symbol.lower()}-{timeframe}"
        return files, manifest | {"symbols": [symbol], "timeframe": timeframe, "line": line}

    return change


COMPAT = {
    "54 of 55 features": (narrower, LoadCheck.FEATURES, "54 features, this code makes 55"),
    "two features swapped": (swapped, LoadCheck.FEATURES, "in column 0"),
    "a feature renamed": (renamed, LoadCheck.FEATURES, "trained on atr_pct_2 in column 0"),
    "float32 where float64 is promised": (other_dtype, LoadCheck.GRAPHS, "takes .*double"),
    "a scaler of another width": (other_scaler, LoadCheck.SCALER, "shapes"),
    "features of another code": (lambda f, m: (f, models(m, feature_hash="e" * 64)), LoadCheck.FEATURES, "trained on features"),
    "classes permuted": (lambda f, m: (f, models(m, classes=["BUY", "SELL", "HOLD"])), LoadCheck.CLASSES, "BUY"),
    "another symbol": (of("BTCUSD", "15min"), LoadCheck.SYMBOL, "the bot expects SYNTH"),
    "another timeframe": (of("SYNTH", "1h"), LoadCheck.TIMEFRAME, "the bot expects 15min"),
    "another label spec": (
        lambda f, m: spoiled(f, m, label_spec=m["market"]["label_spec"] | {"tp_atr": 2.0, "hash": LabelSpec(tp_atr=2.0).hash}),
        LoadCheck.LABEL_SPEC,
        "'tp_atr': 2.0",
    ),
    "a label spec that lies": (
        lambda f, m: spoiled(f, m, label_spec=m["market"]["label_spec"] | {"tp_atr": 2.0}),
        LoadCheck.LABEL_SPEC,
        "its fields make",
    ),
    "a newer runtime": (lambda f, m: (f, m | {"min_runtime_version": "9.0.0"}), LoadCheck.RUNTIME, "needs trademl 9.0.0"),
    "expired": (
        lambda f, m: (f, m | {"trained_at": "2024-01-01T00:00:00Z", "expires_at": "2024-02-01T00:00:00Z"}),
        LoadCheck.AGE,
        "expired",
    ),
    "trained in the first year": (
        lambda f, m: (f, m | {"trained_at": "0001-01-01T00:00:00Z", "expires_at": "0001-01-02T00:00:00Z"}),
        LoadCheck.AGE,
        "expired at 0001",
    ),
    "another run's position": (lambda f, m: (f, m | {"trained_together": "0" * 16}), LoadCheck.TRAINED_TOGETHER, "comes from training run"),
    "golden rows off by 1e-3": (
        lambda f, m: (f | {"golden.npz": _off(f["golden.npz"])}, m),
        LoadCheck.GOLDEN_ROWS,
        "misses its golden rows",
    ),
    "judged rows that are missing": (
        lambda f, m: (f, m | {"explained": None if m.get("explained") else {"rows": 5, "schema": 1}}),
        LoadCheck.EXPLANATION,
        "its manifest says",
    ),
    "a graph that is none": (lambda f, m: (f | {"signal.onnx": b"\x00" * 50}, m), LoadCheck.GRAPHS, "does not load"),
}


def _off(golden):
    arrays = read_npz(golden)
    return npz_bytes(arrays | {"signal_probabilities": arrays["signal_probabilities"] + 1e-3})


@pytest.mark.fault
@pytest.mark.parametrize("name", COMPAT)
def test_a_revision_that_does_not_fit_is_refused_by_name(whole, keys, tmp_path, monkeypatch, name):
    """The pointer is forced: activation would refuse most of these already, and storing itself some."""
    spoil, check, said = COMPAT[name]
    store = Store(tmp_path / "models", keys.trust())
    monkeypatch.setattr(Revision, "verify", lambda *_, **__: None)
    revision = store.write(*spoil(*whole))
    monkeypatch.undo()
    store._replace("model_compat.json", (revision.folder / "model_compat.json").read_bytes())
    with pytest.raises(LoadError, match=said) as refused:
        load(store, keys)
    assert refused.value.check is check


@pytest.mark.fault
def test_who_signed_decides_what_loads(stored, keys, tmp_path, whole):
    with pytest.raises(LoadError, match="is signed by key") as refused:
        load_approved(stored.models_dir, [STRANGER], profile=3, expect=EXPECT)
    assert refused.value.check is LoadCheck.SIGNATURE
    assert load_approved(stored.models_dir, [STRANGER, str(keys.signer())], profile=3, expect=EXPECT).revision
    unsigned = Store(tmp_path / "models")
    unsigned.activate(unsigned.write(*whole).name, "a test")
    with pytest.raises(LoadError, match="is not signed"):
        load(unsigned, keys)
    with pytest.raises(UsageError, match="name the public key"):
        load_approved(unsigned.models_dir, [], profile=3, expect=EXPECT)
    assert Reason.UNSIGNED in load_approved(unsigned.models_dir, None, profile=3, expect=EXPECT).loaded.standing


@pytest.mark.fault
def test_a_rotated_key_counts_beside_its_successor_and_a_removed_one_no_more(stored, whole, tmp_path):
    """The bot's configuration pins one key, two during the rotation, then the new one."""
    folder = KeyFolder(tmp_path / "keys")
    before = folder.create()
    store = Store(tmp_path / "models", folder.trust())
    store.activate(store.write(*whole).name, "a test")
    after = folder.rotate()
    for pinned in ([str(before)], [str(after), str(before)]):
        assert load_approved(store.models_dir, pinned, profile=3, expect=EXPECT).revision
    with pytest.raises(LoadError, match=f"is signed by key {before.name}, and the key {after.name} is pinned"):
        load_approved(store.models_dir, [str(after)], profile=3, expect=EXPECT)
    signed = Store(store.models_dir, folder.trust())
    signed.activate(signed.write(whole[0], whole[1] | {"seed": 8}).name, "signed by its successor")
    assert load_approved(store.models_dir, [str(after)], profile=3, expect=EXPECT).revision
    with pytest.raises(LoadError, match=f"is signed by key {after.name}"):
        load_approved(store.models_dir, [str(before)], profile=3, expect=EXPECT)
    with pytest.raises(UsageError, match="3 keys are pinned"):
        load_approved(store.models_dir, [STRANGER, str(after), str(before)], profile=3, expect=EXPECT)


@pytest.mark.fault
def test_pointers_that_name_nothing_that_may_decide(stored, keys, tmp_path, whole):
    empty = Store(tmp_path / "empty", keys.trust())
    with pytest.raises(LoadError, match="no revision is active") as refused:
        load(empty, keys)
    assert refused.value.check is LoadCheck.POINTER
    for spoil in (b"{", b'{"revision": "0123456789abcdef", "manifest_sha256": "0123456789abcdef"}'):
        empty.models_dir.mkdir(exist_ok=True)
        (empty.models_dir / "model_compat.json").write_bytes(spoil)
        with pytest.raises(LoadError):
            load(empty, keys)
    record = json.loads((stored.models_dir / "model_compat.json").read_bytes())
    other = Store(tmp_path / "other", keys.trust())
    other.write(*whole)
    (other.models_dir / "model_compat.json").write_text(json.dumps(record | {"feature_count": 54}))
    with pytest.raises(LoadError, match="the pointer does not say") as refused:
        load(other, keys)
    assert refused.value.check is LoadCheck.POINTER


@pytest.mark.fault
def test_a_flipped_byte_after_activation_is_seen(whole, keys, tmp_path):
    store = Store(tmp_path / "models", keys.trust())
    revision = store.write(*whole)
    store.activate(revision.name, "a test")
    path = revision.folder / "position.onnx"
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(LoadError, match=r"position\.onnx is not what the manifest says") as refused:
        load(store, keys)
    assert refused.value.check is LoadCheck.HASHES


@pytest.mark.fault
def test_a_candidate_loads_in_shadow_only(whole, keys, tmp_path, market):
    files, manifest = whole
    store = Store(tmp_path / "models", keys.trust())
    candidate = store.write(files, manifest | {"gate": manifest["gate"] | {"passed": False, "reasons": ["nothing there"]}})
    store._replace("model_compat.json", (candidate.folder / "model_compat.json").read_bytes())
    with pytest.raises(LoadError, match="candidate") as refused:
        load(store, keys)
    assert refused.value.check is LoadCheck.APPROVAL
    shadow = load(store, keys, mode="shadow")
    decision = decide(shadow, market)
    assert decision.mode is Mode.SHADOW
    assert decision.may_trade is False
    assert Reason.SHADOW in decision.reasons
    store.activate(candidate.name, "paper only")
    assert load(store, keys).revision == candidate.name  # a person approved it
    with pytest.raises(UsageError, match="live, shadow"):
        load(store, keys, mode="paper")


@pytest.mark.fault
def test_age_and_clock(stored, keys):
    trained = datetime.fromisoformat(stored.active().trained_at)
    with pytest.raises(LoadError, match="this clock is behind") as refused:
        load(stored, keys, now=trained - timedelta(minutes=6))
    assert refused.value.check is LoadCheck.CLOCK
    old = replace(EXPECT, max_age_days=7)
    assert load(stored, keys, expect=old, now=trained + timedelta(days=6)).revision
    with pytest.raises(LoadError, match="more than 7 days ago"):
        load(stored, keys, expect=old, now=trained + timedelta(days=8))
    assert load(stored, keys, expect=replace(EXPECT, max_age_days=1e300)).revision
    for days in (float("nan"), 0, -1.0):
        with pytest.raises(UsageError, match="max_age_days"):
            load(stored, keys, expect=replace(EXPECT, max_age_days=days))
    for moment in (trained.replace(tzinfo=None), 1_700_000_000):
        with pytest.raises(UsageError, match="no time zone"):
            load(stored, keys, now=moment)
    for share in (float("nan"), -0.1, 1.0):
        with pytest.raises(UsageError, match="missing_share"):
            replace(EXPECT, missing_share=share)
    with pytest.raises(UsageError, match="profile 9"):
        load(stored, keys, profile=9)


@pytest.mark.fault
def test_a_refresh_looks_at_its_own_clock_and_not_at_that_of_the_load(stored, keys):
    trained = datetime.fromisoformat(stored.active().trained_at)
    predictor = load(stored, keys, expect=replace(EXPECT, max_age_days=7), now=trained + timedelta(days=1))
    assert predictor.refresh(now=trained + timedelta(days=6)) is False
    with pytest.raises(LoadError, match="more than 7 days ago"):
        predictor.refresh(now=trained + timedelta(days=8))
    with pytest.raises(LoadError, match="this clock is behind"):
        predictor.refresh(now=trained - timedelta(days=1))


def test_refresh_takes_a_new_revision_and_keeps_the_old_until_it_is_proven(whole, keys, tmp_path, market):
    files, manifest = whole
    store = Store(tmp_path / "models", keys.trust())
    first = store.write(files, manifest)
    store.activate(first.name, "a test")
    predictor = load(store, keys)
    assert predictor.refresh() is False
    broken = store.write(files | {"golden.npz": _off(files["golden.npz"])}, manifest)
    store._replace("model_compat.json", (broken.folder / "model_compat.json").read_bytes())
    with pytest.raises(LoadError, match="golden rows"):
        predictor.refresh()
    assert predictor.revision == first.name
    assert decide(predictor, market).revision == first.name
    later = store.write(files, manifest | {"seed": 8})
    store.activate(later.name, "a test")
    assert predictor.refresh() is True
    assert decide(predictor, market).revision == later.name


@pytest.mark.contract
def test_a_fresh_process_needs_numpy_onnxruntime_and_cryptography(stored, keys, market, tmp_path):
    """Import, load, verify and decide: nothing else of the workbench is imported on the way."""
    tail, bars = market.tail(), tmp_path / "bars.npz"
    bars.write_bytes(npz_bytes(tail._asdict() | {"news": market.calendar.times}))
    code = f"""
import sys
import numpy as np
from trademl.bot import AccountState, Bars, Calendar, Expect, load_approved
from datetime import datetime, UTC
predictor = load_approved({str(stored.models_dir)!r}, [{str(keys.signer())!r}], profile=3, expect=Expect("SYNTH"))
kept = np.load({str(bars)!r})
tail = Bars(*(kept[name] for name in Bars._fields))
calendar = Calendar(kept["news"], (), {market.calendar.covers_until})
account = AccountState.opened(predictor.line, 3, 10_000.0)
decision = predictor.predict(tail, calendar, account, now=datetime.fromtimestamp(int(tail.time[-1]) + 901, UTC))
third = {{name.split(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names) - {{"__main__"}}
print(decision.probabilities is not None, sorted(name for name in third if not name.startswith("_")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    decided, modules = done.stdout.split(" ", 1)
    assert decided == "True"
    assert set(ast.literal_eval(modules)) <= {"trademl", "numpy", "onnxruntime", "cryptography", "sitecustomize"}


def test_every_check_has_a_test():
    tried = {check for _, check, _ in COMPAT.values()}
    elsewhere = {"POINTER", "SIGNATURE", "CLOCK", "APPROVAL", "HASHES"}  # in the tests above
    ship = {"PIPELINE", "MANIFEST", "FILES", "MODEL_COMPAT", "HEAD"}  # by the manifest's and the store's own tests
    assert {check.name for check in LoadCheck} == {check.name for check in tried} | elsewhere | ship


def test_a_policy_is_what_the_predictor_asks(predictor):
    assert isinstance(predictor.loaded.policy, Policy)
    assert isinstance(predictor.loaded.policy.revision, Revision)
    assert issubclass(LoadError, RevisionError)


# ---------------------------------------------------------------- the example


@pytest.fixture(scope="module")
def recorded(market, tmp_path_factory):
    """Bars and calendar as files, as the paper bot reads them."""
    folder = tmp_path_factory.mktemp("recorded")
    tail = market.tail(bars=2_060)
    np.savetxt(
        folder / "bars.csv", np.column_stack(tail), fmt=["%d", *["%.17g"] * 5], delimiter=",", header=",".join(tail._fields), comments=""
    )
    np.savetxt(folder / "news.csv", market.calendar.times, fmt="%d", header="time", comments="")
    return folder


@pytest.mark.contract
def test_a_paper_bot_that_is_restarted_decides_as_one_that_was_not(repo, stored, keys, recorded, tmp_path):
    def play(folder, *steps):
        arguments = [stored.models_dir, keys.signer(), "SYNTH", recorded / "bars.csv", recorded / "news.csv", tmp_path / folder, *steps]
        command = [sys.executable, repo / "examples" / "paper_bot.py", *arguments]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout

    said = play("one")
    for steps in (37, 10_000):
        last = play("restarted", steps)
    assert said == last
    one, restarted = (read_log(tmp_path / folder / "log.jsonl") for folder in ("one", "restarted"))
    assert one.is_whole
    assert one.head == restarted.head
    kinds = [record["kind"] for record in one.records]
    assert kinds.count("decision") == 60
    assert kinds.count("fill") >= kinds.count("exit") > 0
    assert (tmp_path / "one" / "state.json").read_bytes() == (tmp_path / "restarted" / "state.json").read_bytes()
