"""Workers measure what this process measures, and what they finished is kept.

Threads of this process find the same bits. Another process has fewer threads for each sum, which
TensorFlow may add up in another order: powers to 1e-6, and KL divergences, small differences of
large numbers, to 1e-5.
"""

from dataclasses import replace

import joblib
import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure import evaluator as evaluate
from keras_edgeq.measure import workers
from keras_edgeq.measure.candidate_grids import CandidateForm, candidate_grids
from keras_edgeq.measure.evaluator import Evaluator
from keras_edgeq.measure.groups import SearchSpace
from keras_edgeq.measure.measurement_log import MeasurementLog
from keras_edgeq.measure.portable_study import PortableStudy
from keras_edgeq.streams.store import StoredBatches, TensorStore
from tests.models import inputs_for, make

# Of the columns of the sums.
PROCESS = np.array([1e-6, 1e-6, 1e-5, 0.0, 0.0])
SAME = 0.0
CANDIDATES = ("W4A8", "W8A8", "W8A16", "FP32")
BATCHES = 3


class Case:
    def __init__(self):
        model = make("residual")
        sim = eq.quantize(model, inputs_for(model, 32), "onnxruntime_int8", progress=False)
        self.grids = candidate_grids(SearchSpace(sim, CANDIDATES))
        self.around = self.grids.uniform("W8A8")
        self.choices = [
            {**self.around, g.name: name} for g in self.grids.groups for name in g.candidates
        ]
        self.batches = [[inputs_for(model, 4, seed=seed)] for seed in range(BATCHES)]
        self.alone = self.evaluator(1)
        self.wanted = self.alone.measure(self.choices, self.around)

    def evaluator(self, jobs, log=None, grids=None):
        store = TensorStore(10**9)
        log = log or MeasurementLog(None, "print")
        source = StoredBatches(self.batches, store)
        return Evaluator(grids or self.grids, source, store, log, False, jobs)

    def check(self, evaluator, rtol):
        found = evaluator.measure(self.choices, self.around)
        for one, other in zip(found, self.wanted, strict=True):
            assert np.all(np.abs(one.sums - other.sums) <= rtol * np.abs(other.sums))


class Interrupted(MeasurementLog):
    def __init__(self, path, after):
        super().__init__(path, "print")
        self.after, self.added = after, 0

    def add(self, choice, part, numbers):
        if self.added == self.after:
            raise KeyboardInterrupt
        super().add(choice, part, numbers)
        self.added += 1


class Rounds(joblib.parallel.ThreadingBackend):
    """Returns all results at once, as the backend of Ray does."""

    supports_return_generator = False


joblib.register_parallel_backend("rounds", Rounds)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.mark.slow
def test_two_processes_measure_the_same(case):
    evaluator = case.evaluator(2)
    case.check(evaluator, PROCESS)
    assert evaluator._evaluation.passes == 0.0
    # Workers repeat the front of the network and the float model, at most once for each part.
    parts = workers.PARTS_PER_JOB * 2
    assert case.alone.passes <= evaluator.passes <= case.alone.passes + 2 * parts / BATCHES


@pytest.mark.slow
def test_processes_join_where_they_pay(case, monkeypatch):
    monkeypatch.setattr(evaluate, "usable_cores", lambda: 8)
    monkeypatch.setattr(evaluate, "paying_jobs", lambda cores, seconds, building: 2)
    evaluator = case.evaluator(None)
    case.check(evaluator, PROCESS)
    assert evaluator._evaluation.passes == pytest.approx(case.alone.passes / BATCHES)
    assert evaluator.passes_elsewhere > 0.0


@pytest.mark.slow
def test_what_was_finished_survives_an_interruption(case, tmp_path):
    path, total = tmp_path / "measured.jsonl", len(case.choices) * BATCHES
    stopped = Interrupted(path, after=5)
    with pytest.raises(KeyboardInterrupt):
        case.evaluator(2, stopped).measure(case.choices, case.around)
    log = Interrupted(path, after=total)
    again = case.evaluator(1, log)
    case.check(again, PROCESS)
    # One choice is among its groups' candidates several times.
    unique = len({tuple(choice.values()) for choice in case.choices}) * BATCHES
    assert log.added == unique - 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["rounds"])
def test_a_worker_builds_its_bench_once(case, backend, monkeypatch):
    built = []
    original = PortableStudy.evaluation
    monkeypatch.setattr(
        PortableStudy, "evaluation", lambda self: built.append(self) or original(self)
    )
    with joblib.parallel_config(backend, n_jobs=2):
        evaluator = case.evaluator(None)
        case.check(evaluator, SAME)
        more = [{**c, case.grids.groups[0].name: "W4A8"} for c in case.choices]
        evaluator.measure(more, case.around)
    workers.release()
    assert 1 <= len(built) <= 2
    assert evaluator._evaluation.passes == 0.0


def test_a_split_keeps_choices_that_begin_together(case):
    evaluation = case.alone._evaluation
    whole = [workers.Part(0, tuple(case.choices))]
    parts = workers.split(evaluation, whole, case.around, jobs=2)
    assert len(parts) > 1
    together = [choice for part in parts for choice in part.choices]
    starts = evaluation.starts(together, case.around)
    assert starts == sorted(starts)
    assert sorted(map(str, together)) == sorted(map(str, case.choices))
    enough = [workers.Part(batch, tuple(case.choices)) for batch in range(6)]
    assert len(workers.split(evaluation, enough, case.around, jobs=2)) == 6


def test_a_recipe_measures_the_same_in_this_process(case):
    source = StoredBatches(case.batches, TensorStore(10**9))
    portable = PortableStudy.of(case.grids, source, 10**9)
    same = PortableStudy.of(case.grids, source, 10**9)
    forms = {**case.grids.forms, case.grids.groups[0].name: {"W8A8": CandidateForm()}}
    other = PortableStudy.of(replace(case.grids, forms=forms), source, 10**9)
    assert portable.key == same.key != other.key
    assert portable.__sizeof__() > sum(part.nbytes for batch in portable.batches for part in batch)
    evaluation = portable.evaluation()
    for choice, sums in evaluation.measure(1, case.choices[:3], case.around):
        known = case.alone.log.get(choice, "1")
        np.testing.assert_array_equal(sums, known)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield cluster


@pytest.mark.slow
def test_a_local_dask_cluster_measures_the_same(case, cluster):
    evaluator = case.evaluator(None)
    case.check(evaluator, PROCESS)
    assert evaluator._evaluation.passes == 0.0


@pytest.mark.slow
def test_an_error_names_the_choice(case, cluster):
    group = case.grids.groups[1].name
    broken = replace(case.grids.forms[group]["W4A8"], values={"kernel": np.zeros((1, 2, 3))})
    forms = {**case.grids.forms, group: {**case.grids.forms[group], "W4A8": broken}}
    evaluator = case.evaluator(2, grids=replace(case.grids, forms=forms))
    with pytest.raises(EdgeqError, match=f"{group} in W4A8 on batch . failed in a worker") as found:
        evaluator.measure(case.choices, case.around)
    assert str(found.value).count("W4A8") == 1
