"""Training a supernet, both ways: networks get better, choices follow their price, a killed run ends the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_latency import measured

from dense_models import bert
from squeezebert.data.corpus import Corpus
from squeezebert.files.errors import DivergedError
from squeezebert.model import SqueezeBertModel
from squeezebert.search.latency import LatencyTable, Target
from squeezebert.search.learning import GumbelLearner, Judge, SandwichLearner, train, within
from squeezebert.search.options import SearchOptions
from squeezebert.search.prices import Prices
from squeezebert.search.space import Space
from squeezebert.search.supernet import Supernet, nested_order
from squeezebert.training.losses import learning_layers
from squeezebert.training.shapes import paper_shape
from squeezebert.training.squeeze import calibration_batches
from students import small_corpus
from tiny_checkpoints import tiny_tokenizer

OPTIONS = SearchOptions(budget_ratio=(0.5,), steps=30, samples=1, batch_tokens=200, learning_rate=3e-3, save_every=10)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"), tiny_tokenizer())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> SqueezeBertModel:
    model = SqueezeBertModel.from_pretrained(bert(tmp_path_factory.mktemp("base") / "bert")).eval()
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter.mul_(6)  # layers that say more than their inputs do
    return nested_order(model, calibration_batches(corpus, 2000, 0))


@pytest.fixture(scope="module")
def space(teacher: SqueezeBertModel) -> Space:
    return Space.of(teacher.config)


@pytest.fixture(scope="module")
def table(space: Space) -> LatencyTable:
    generator = np.random.default_rng(0)
    shapes = {str(i): space.random(generator) for i in range(80)} | {"dense": space.dense}
    found = measured(shapes, space=space)
    dense = found["dense"]["ratio"]
    rows = [{"shape": shapes[name], **row, "ratio": row["ratio"] / dense} for name, row in found.items()]
    return LatencyTable(space, Target(tokens=16), rows, 0)


@pytest.fixture
def supernet(teacher: SqueezeBertModel, space: Space, corpus: Corpus) -> Supernet:
    return Supernet.of(teacher, space, calibration_batches(corpus, 2000, 0))


def sandwich(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, options: SearchOptions = OPTIONS
) -> Any:
    draw = within(supernet.space, table, 0.3, 0.7)
    return SandwichLearner(supernet, teacher, options, draw, supernet.space.uniform(**paper_shape(4)))


def gumbel(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, options: SearchOptions = OPTIONS
) -> Any:
    return GumbelLearner(supernet, teacher, replace(options, method="gumbel"), table, 0.5)


ROWS = np.arange(20, 130)


def test_networks_get_nearer_to_the_teacher(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, corpus: Corpus, tmp_path: Path
) -> None:
    learner = sandwich(supernet, teacher, table)
    judge = Judge(learner, corpus, np.arange(20))
    shapes = [learner.smallest, *(learner.draw(np.random.default_rng(i)) for i in range(12))]
    before = [judge(shape) for shape in shapes]
    train(learner, corpus, ROWS, tmp_path, lambda line: None)
    after = [judge(shape) for shape in shapes]
    assert after[0] < 0.95 * before[0]
    assert np.mean(after) < np.mean(before)
    assert judge(supernet.space.dense) < min(after)


@pytest.mark.parametrize("kind", [sandwich, gumbel])
def test_a_run_that_is_cut_off_ends_with_the_same_weights(
    kind: Any, teacher: SqueezeBertModel, space: Space, table: LatencyTable, corpus: Corpus, tmp_path: Path
) -> None:
    batches = calibration_batches(corpus, 2000, 0)
    whole = kind(Supernet.of(teacher, space, batches), teacher, table)
    train(whole, corpus, ROWS, tmp_path / "whole", lambda line: None)

    class Killed(Exception):
        pass

    cut = kind(Supernet.of(teacher, space, batches), teacher, table)
    take = cut.take

    def dies(batch: Any) -> None:
        if cut.step == 17:
            raise Killed
        take(batch)

    cut.take = dies
    with pytest.raises(Killed):
        train(cut, corpus, ROWS, tmp_path / "cut", lambda line: None)
    again = kind(Supernet.of(teacher, space, batches), teacher, table)
    said: list[str] = []
    train(again, corpus, ROWS, tmp_path / "cut", said.append)
    assert said[0] == "supernet: going on after step 10"
    for (name, a), b in zip(whole.supernet.state_dict().items(), again.supernet.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    if kind is gumbel:
        assert whole.most_likely() == again.most_likely()


def test_choices_go_where_their_price_sends_them(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, corpus: Corpus, tmp_path: Path
) -> None:
    options = replace(OPTIONS, latency_weight=50.0, steps=60, choice_learning_rate=0.3)
    learner = gumbel(supernet, teacher, table, options)
    uniform = [{f: torch.full((len(v),), 1 / len(v)) for f, v in supernet.space.choices.items()}] * 2
    before = float(learner.prices.expected(uniform))
    learner.budget = 0.4 * before
    train(learner, corpus, ROWS, tmp_path, lambda line: None)
    generator = np.random.default_rng(0)
    ratios = [table.ratio(learner.drawn(generator)) for _ in range(40)]
    assert abs(np.mean(ratios) - learner.budget) < abs(before - learner.budget)
    assert np.mean(ratios) < 0.8 * before


def test_prices_add_up_to_the_table(supernet: Supernet, table: LatencyTable) -> None:
    generator = np.random.default_rng(4)
    shapes = [supernet.space.dense, supernet.space.empty, *(supernet.space.random(generator) for _ in range(60))]
    for reads in ("first", "all"):
        told = LatencyTable(table.space, replace(table.target, reads=reads), table.rows, 0)
        told.prices = told.prices + 1e-7  # for each thing, so that it counts
        prices = Prices(told)
        for shape in shapes:
            expected = float(prices.expected(supernet.gates_of(shape)))
            assert expected == pytest.approx(told.ratio(shape), rel=1e-5)


def test_the_expected_price_is_the_mean_over_networks_that_are_drawn(supernet: Supernet, table: LatencyTable) -> None:
    told, space = LatencyTable(table.space, table.target, table.rows, 0), supernet.space
    told.prices = told.prices + 1e-7
    generator = np.random.default_rng(5)
    chances = [{f: generator.dirichlet(np.ones(len(v))) for f, v in space.choices.items()} for _ in range(2)]
    gates = [{f: torch.tensor(p, dtype=torch.float32, requires_grad=True) for f, p in own.items()} for own in chances]
    expected = Prices(told).expected(gates)
    ratios = []
    for _ in range(2000):
        drawn = {
            field: [values[generator.choice(len(values), p=own[field])] for own in chances]
            for field, values in space.choices.items()
        }
        ratios.append(told.ratio(space.repaired(drawn)))
    assert abs(expected.item() - np.mean(ratios)) < 4 * np.std(ratios) / len(ratios) ** 0.5
    expected.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for own in gates for one in own.values())


def test_layers_that_are_left_out_have_nothing_to_learn(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, corpus: Corpus
) -> None:
    """The same layers learn in the supernet, of which a shape is one mixture, as in the network itself."""
    space, learner = supernet.space, gumbel(supernet, teacher, table)
    none, first, last = (
        {**space.dense, "kept_heads": heads, "intermediate_size": widths}
        for heads, widths in (([0, 0], [0, 0]), ([4, 0], [64, 0]), ([0, 4], [0, 0]))
    )
    for shape in [space.repaired(one) for one in (space.dense, none, first, last)] + [
        space.random(np.random.default_rng(i)) for i in range(20)
    ]:
        config = space.config(shape, teacher.config)
        assert learner.learning(supernet.gates_of(shape)).tolist() == learning_layers(config), shape
    half = supernet.gates_of(space.dense)
    for field in ("kept_heads", "intermediate_size"):
        half[1][field] = torch.full((len(space.choices[field]),), 1 / len(space.choices[field]))
    there = 1 - half[1]["kept_heads"][0] * half[1]["intermediate_size"][0]
    torch.testing.assert_close(learner.learning(half), torch.stack([there, torch.tensor(1.0)]))


def test_choices_follow_the_error_where_time_is_free(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, corpus: Corpus, tmp_path: Path
) -> None:
    options = replace(OPTIONS, latency_weight=0.0, steps=60, choice_learning_rate=0.3, learning_rate=1e-6)
    learner = gumbel(supernet, teacher, table, options)
    judge, generator = Judge(learner, corpus, np.arange(20)), np.random.default_rng(0)
    before = np.mean([judge(learner.drawn(generator)) for _ in range(20)])
    train(learner, corpus, ROWS, tmp_path, lambda line: None)
    after = np.mean([judge(learner.drawn(generator)) for _ in range(20)])
    assert after < 0.8 * before


def test_what_runs_away_is_said(
    supernet: Supernet, teacher: SqueezeBertModel, table: LatencyTable, corpus: Corpus, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(iter(supernet.layers[0].parameters())).fill_(float("nan"))
    with pytest.raises(
        DivergedError,
        match=r"ran away at step .*: search again in another --output with a lower --learning-rate than 0.003",
    ):
        train(sandwich(supernet, teacher, table), corpus, ROWS, tmp_path, lambda line: None)
