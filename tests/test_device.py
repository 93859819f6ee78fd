"""Where a library trains: probed, read back, and given up once when it fails in mid-fit."""

import json
import subprocess
from dataclasses import asdict, replace
from types import SimpleNamespace

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from trademl import device
from trademl.device import CPU, Resolved, fit_on, notes, resolve, resolve_models
from trademl.errors import UsageError
from trademl.learn import ensemble
from trademl.learn.ensemble import Rounds, fit_ensemble, native_files
from trademl.learn.fits import Batch, Target
from trademl.pipeline.market.parameters import recipe_of
from trademl.pipeline.market.proof import recipe_facts
from trademl.settings import load_settings

PRETENDED = Resolved("auto", "cuda", "pretended")


@pytest.fixture
def probed(monkeypatch):
    """Set what the probing process answers; returns a function."""
    device.probe.cache_clear()
    monkeypatch.setattr(device, "has_accelerator", lambda: True)

    def answer(stdout="", stderr="", returncode=0):
        done = SimpleNamespace(stdout=stdout, stderr=stderr, returncode=returncode)
        monkeypatch.setattr(device.subprocess, "run", lambda *a, **k: done)

    yield answer
    device.probe.cache_clear()


class TestProbe:
    def test_what_the_fit_says_it_ran_on_is_believed_and_nothing_else(self, probed):
        probed("cuda:0\n")
        assert resolve("xgboost") == Resolved("auto", "cuda", "a tiny fit ran on it")

    def test_a_library_that_quietly_trains_on_the_cpu_is_found_out(self, probed):
        probed("cpu\n")
        found = resolve("xgboost", "cuda")
        assert (found.requested, found.resolved) == ("cuda", "cpu")
        assert "trained on cpu" in found.reason

    def test_a_library_that_raises_or_dies_names_why(self, probed):
        probed(stderr="Traceback\nLightGBMError: CUDA Tree Learner was not enabled in this build", returncode=1)
        assert "not enabled" in resolve("lightgbm", "cuda").reason
        device.probe.cache_clear()
        probed(returncode=-6)
        assert "status -6" in resolve("lightgbm", "cuda").reason

    def test_a_driver_that_hangs_is_left_alone(self, probed, monkeypatch):
        def hang(*args, **kwargs):
            raise subprocess.TimeoutExpired("probe", 1)

        monkeypatch.setattr(device.subprocess, "run", hang)
        assert "did not end" in resolve("xgboost").reason

    def test_without_an_accelerator_auto_asks_nobody(self, monkeypatch):
        monkeypatch.setattr(device, "has_accelerator", lambda: False)
        monkeypatch.setattr(device, "probe", None)
        assert {one.resolved for one in resolve_models("auto").values()} == {"cpu"}
        assert resolve_models("cpu") == dict.fromkeys(("rf", "xgb", "lgb"), CPU)

    def test_a_forest_has_no_gpu_path_and_other_words_are_refused(self):
        assert resolve("scikit-learn", "cuda").resolved == "cpu"
        with pytest.raises(UsageError, match="rocm"):
            resolve("xgboost", "rocm")


class TestDoctor:
    """An earlier answer is shown as long as everything that it rests on is the same."""

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return tmp_path / "trademl"

    def test_an_answer_is_kept_in_the_cache_folder_and_shown_again(self, probed, cache):
        probed("cuda:0\n")
        first = device.examine_device("xgboost")
        assert first.kept_in == str(cache / "device-xgboost.json")
        device.probe.cache_clear()
        probed("cpu\n")
        assert device.examine_device("xgboost") == first
        assert device.examine_device("xgboost", fresh=True).device.resolved == "cpu"
        assert [path.name for path in cache.iterdir()] == ["device-xgboost.json"]

    @pytest.mark.parametrize(
        "change",
        [
            lambda patch: patch.setenv("CUDA_VISIBLE_DEVICES", ""),
            lambda patch: patch.setattr(device, "has_accelerator", lambda: False),
            lambda patch: patch.setattr(device.platform, "node", lambda: "another"),
            lambda patch: patch.setattr(device.sys, "prefix", "/another/environment"),
            lambda patch: patch.setattr(
                device.metadata, "distribution", lambda name: OtherBuild("9.9.9", DISTRIBUTION(name).read_text("RECORD"))
            ),
            lambda patch: patch.setattr(
                device.metadata, "distribution", lambda name: OtherBuild(DISTRIBUTION(name).version, "lib.so,sha256=x,1")
            ),
        ],
        ids=["visible devices", "accelerator", "machine", "environment", "version", "build of the same version"],
    )
    def test_it_is_asked_again_when_something_has_changed(self, probed, cache, monkeypatch, change):
        probed("cuda:0\n")
        device.examine_device("xgboost")
        device.probe.cache_clear()
        probed("cpu\n")
        change(monkeypatch)
        assert device.examine_device("xgboost").device.resolved == "cpu"

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": 1', '{"device": {}}'])
    def test_a_file_that_is_not_ours_is_replaced(self, probed, cache, text):
        cache.mkdir()
        (cache / "device-xgboost.json").write_text(text)
        probed("cuda:0\n")
        assert device.examine_device("xgboost").device.resolved == "cuda"
        assert json.loads((cache / "device-xgboost.json").read_text())["device"]["resolved"] == "cuda"

    def test_without_a_folder_to_write_to_every_call_probes(self, probed, tmp_path, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        probed("cuda:0\n")
        assert device.examine_device("xgboost").kept_in is None

    def test_a_time_out_is_not_kept(self, probed, cache, monkeypatch):
        def hang(*args, **kwargs):
            raise subprocess.TimeoutExpired("probe", 1)

        monkeypatch.setattr(device.subprocess, "run", hang)
        assert "did not end" in device.examine_device("xgboost").device.reason
        assert not cache.exists()

    def test_the_table_says_when_and_where(self, probed, cache):
        probed("cpu\n")
        lines = dict(device.examine().lines())
        assert lines["xgboost trains on"].startswith("cpu")
        assert str(cache / "device-lightgbm.json") in lines["lightgbm probed at"]
        assert "--fresh" in lines["xgboost probed at"]


DISTRIBUTION = device.metadata.distribution


class OtherBuild(SimpleNamespace):
    """An installed library of this version and these files."""

    def __init__(self, version, record):
        super().__init__(version=version, read_text=lambda name: record)


class TestFallback:
    def test_a_gpu_that_fails_in_mid_fit_is_given_up_once(self):
        tried = []

        def fit(where):
            tried.append(where)
            if where != "cpu":
                raise MemoryError("out of memory\n on device 0")
            return "fitted"

        fitted, where = fit_on(PRETENDED, fit, lambda _: "cpu", MemoryError)
        assert (fitted, tried) == ("fitted", ["cuda", "cpu"])
        assert where == Resolved("auto", "cpu", "cuda failed in mid-fit (out of memory on device 0); fitted again on the CPU")

    def test_another_error_and_an_error_on_the_cpu_are_raised(self):
        def fail(where):
            raise ValueError(where)

        with pytest.raises(ValueError, match="cuda"):
            fit_on(PRETENDED, fail, str, MemoryError)
        with pytest.raises(ValueError, match="cpu"):
            fit_on(PRETENDED, fail, str, ValueError)
        with pytest.raises(ValueError, match="cpu"):
            fit_on(CPU, fail, str, ValueError)

    def test_the_device_is_read_back_from_what_was_fitted(self):
        assert fit_on(PRETENDED, str, lambda _: "cuda:0", ValueError) == ("cuda", PRETENDED)
        assert fit_on(PRETENDED, str, lambda _: "cpu", ValueError)[1].resolved == "cpu"

    def test_notes_name_what_did_not_train_where_it_was_asked_to(self):
        asked = {model: asdict(Resolved("cuda", "cpu", "no GPU")) for model in ("rf", "xgb", "lgb")}
        assert notes({"signal": asked, "position": asked}) == [
            "xgboost was asked for cuda and trained on the CPU: no GPU",
            "lightgbm was asked for cuda and trained on the CPU: no GPU",
        ]
        assert notes({"signal": {"xgb": asdict(Resolved("auto", "cpu", "no accelerator"))}}) == []
        assert len(notes({"signal": {"xgb": asdict(Resolved("auto", "cpu", "cuda failed in mid-fit (x)"))}})) == 1


@pytest.fixture(scope="module")
def task():
    """A small fit's arguments."""
    params = replace(load_settings().ensemble, rf_trees=5, rf_min_samples_leaf=5, lgb_min_data_in_leaf=5)
    rng = np.random.default_rng(5)
    z = rng.normal(size=(600, 5)).astype(np.float32)
    batch = Batch(z, rng.integers(0, 3, 600), np.ones(600))
    return (batch, params, Target("signal", ("SELL", "BUY", "HOLD"))), {"seed": 1, "until": Rounds(8, 8)}


class TestFits:
    def test_the_cpus_files_do_not_know_what_was_asked_for(self, task):
        """Also where cuda is asked for and the library, without a GPU, quietly trains on the CPU or raises."""
        args, options = task
        plain = fit_ensemble(*args, **options)
        asked = fit_ensemble(*args, **options, devices=dict.fromkeys(("xgb", "lgb"), Resolved("auto", "cpu", "no accelerator")))
        assert native_files(asked, "signal") == native_files(plain, "signal")
        assert plain.devices == dict.fromkeys(("rf", "xgb", "lgb"), CPU)
        if device.has_accelerator():
            pytest.skip("a GPU may be here: its models are not the CPU's")
        forced = fit_ensemble(*args, **options, devices={"xgb": PRETENDED, "lgb": PRETENDED})
        assert native_files(forced, "signal") == native_files(plain, "signal")
        assert {name: one.resolved for name, one in forced.devices.items()} == {"rf": "cpu", "xgb": "cpu", "lgb": "cpu"}

    def test_a_gpu_out_of_memory_in_either_booster(self, task, monkeypatch):
        args, options = task
        plain = fit_ensemble(*args, **options)
        train = {"xgb": xgb.train, "lgb": lgb.train}

        def full(name, key, failure):
            def fit(given, *more, **keywords):
                if given.get(key) == "cuda":
                    raise failure("out of memory")
                return train[name](given, *more, **keywords)

            return fit

        monkeypatch.setattr(ensemble.xgb, "train", full("xgb", "device", xgb.core.XGBoostError))
        monkeypatch.setattr(ensemble.lgb, "train", full("lgb", "device_type", lgb.basic.LightGBMError))
        fell = fit_ensemble(*args, **options, devices={"xgb": PRETENDED, "lgb": PRETENDED})
        assert native_files(fell, "signal") == native_files(plain, "signal")
        assert all("out of memory" in fell.devices[name].reason for name in ("xgb", "lgb"))

    def test_a_gpu_that_works_is_believed_when_the_booster_says_so(self, task, monkeypatch):
        args, options = task
        monkeypatch.setattr(ensemble, "xgb_device", lambda booster: "cuda:0")
        monkeypatch.setattr(ensemble, "lgb_device", lambda booster: "cuda")
        monkeypatch.setattr(ensemble, "fit_lightgbm", lambda *a, device, **k: FIT_LIGHTGBM(*a, **k))
        fitted = fit_ensemble(*args, **options, devices={"xgb": PRETENDED, "lgb": PRETENDED})
        assert fitted.devices["xgb"] == fitted.devices["lgb"] == PRETENDED
        assert np.abs(fitted.by_xgb.inplace_predict(args[0].z) - fitted.model_probabilities(args[0].z)[:, 1]).max() < 1e-5

    def test_the_recipe_carries_the_settings_and_the_run_id_does_not(self, monkeypatch):
        on_cpu, auto = (recipe_of(load_settings({"run.device": asked})) for asked in ("cpu", "auto"))
        assert on_cpu.devices["xgb"] == CPU
        if auto.devices["xgb"].resolved == "cpu":
            assert recipe_facts(on_cpu) == recipe_facts(auto)
        assert recipe_facts(replace(auto, devices={"xgb": PRETENDED})) != recipe_facts(on_cpu)


FIT_LIGHTGBM = ensemble.fit_lightgbm
