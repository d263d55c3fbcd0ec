import numpy as np

from rayscale.laws.auto import panel as panels
from rayscale.laws.auto.descent import descend
from rayscale.laws.auto.panel import Panel, draw, fit_panel, predict
from rayscale.laws.catalogue import BNSL, POWER, RECTIFIED, SUFFIX, without_asymptote
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.fitting.starts import grid

SIZES = 500.0 * 2.0 ** np.arange(9)


def curves_of(law, parameters, noise, rng, spread=0.1, count=12):
    """Curves of one kind: (their true parameters, panel of all of them)."""
    found, made = [], []
    for _ in range(count):
        own = {name: value * np.exp(spread * rng.normal()) for name, value in parameters.items()}
        target = law.function({"data": SIZES}, own) * np.exp(noise * rng.normal(size=len(SIZES)))
        found.append(own)
        made.append(({"data": SIZES}, target, np.ones(len(SIZES))))
    return found, Panel.of(law, made)


def truth_of(law, parameters):
    return np.log(np.array([law.function({"data": SIZES}, own) for own in parameters]))


def test_curves_without_noise_are_found_again():
    rng = np.random.default_rng(1)
    known, panel = curves_of(RECTIFIED, {"B": 200.0, "E": 1.0, "D0": 60.0, "beta": 0.45}, 0.0, rng)
    foretold, _ = predict(panel, fit_panel(panel.keep(RECTIFIED, panel.inputs["data"] <= SIZES[6]), RECTIFIED))
    np.testing.assert_allclose(foretold, truth_of(RECTIFIED, known), atol=2e-3)


def test_short_curves_foretell_better_among_others_of_their_kind():
    rng = np.random.default_rng(2)
    known, panel = curves_of(RECTIFIED, {"B": 200.0, "E": 1.0, "D0": 60.0, "beta": 0.45}, 0.01, rng)
    part = panel.keep(RECTIFIED, panel.inputs["data"] <= SIZES[5])
    together = predict(panel, fit_panel(part, RECTIFIED))[0] - truth_of(RECTIFIED, known)
    alone = []
    for curve in range(len(known)):
        one = Panel.of(RECTIFIED, [({"data": SIZES}, panel.target[curve], part.weights[curve])])
        alone.append(predict(one, fit_panel(one, RECTIFIED))[0][0])
    missed = np.array(alone) - truth_of(RECTIFIED, known)
    assert np.sqrt(np.mean(together[:, -1] ** 2)) < 0.7 * np.sqrt(np.mean(missed[:, -1] ** 2))


def test_one_odd_curve_moves_the_others_little():
    rng = np.random.default_rng(3)
    known, panel = curves_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, 0.002, rng)
    strange = 5 * (1 + SIZES / SIZES[0]) ** 0.3  # rises with data
    target = np.vstack([panel.target, strange])
    sizes = np.broadcast_to(SIZES, target.shape)
    odd = Panel.of(POWER, [({"data": x}, y, np.ones(len(x))) for x, y in zip(sizes, target, strict=True)])
    before = predict(panel, fit_panel(panel.keep(POWER, panel.inputs["data"] <= SIZES[6]), POWER))[0]
    after = predict(odd, fit_panel(odd.keep(POWER, odd.inputs["data"] <= SIZES[6]), POWER))[0][:-1]
    assert np.sqrt(np.mean((after - truth_of(POWER, known))[:, -1] ** 2)) < 0.01
    np.testing.assert_allclose(after, before, atol=0.01)


def test_units_of_size_and_target_change_no_prediction():
    rng = np.random.default_rng(4)
    _, panel = curves_of(RECTIFIED, {"B": 200.0, "E": 1.0, "D0": 60.0, "beta": 0.45}, 0.005, rng, count=4)
    made = [({"data": SIZES * 1e9}, y * 1e-4, np.ones(len(y))) for y in panel.target]
    other = Panel.of(RECTIFIED, made)
    rows = panel.inputs["data"] <= SIZES[6]
    first, _ = predict(panel.keep(RECTIFIED, rows), fit_panel(panel.keep(RECTIFIED, rows), RECTIFIED))
    second, _ = predict(other.keep(RECTIFIED, rows), fit_panel(other.keep(RECTIFIED, rows), RECTIFIED))
    np.testing.assert_allclose(second - np.log(1e-4), first, atol=1e-6)


def test_draws_stay_where_the_rows_fit():
    rng = np.random.default_rng(5)
    _, panel = curves_of(BNSL, {"A": 3.0, "E": 0.7, "c0": 0.03, "c1": 0.3, "d1": 8e3, "f1": 0.8}, 0.003, rng, count=5)
    found = fit_panel(panel, BNSL)
    (sample,) = draw(panel, found, [0], [200], [rng])
    drawn = panel.coordinates(BNSL, 0).linked(sample, {"data": SIZES})
    assert np.isfinite(drawn).all()
    scatter = drawn.std(axis=0)
    assert (scatter < 2 * found.noise[0]).all()
    assert (scatter > 0.1 * found.noise[0]).all()


def test_curves_of_different_lengths_are_padded_without_effect():
    rng = np.random.default_rng(6)
    _, panel = curves_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, 0.002, rng, count=1)
    alone = fit_panel(panel, POWER)
    double = Panel.of(POWER, [({"data": SIZES}, panel.target[0], np.ones(9)), ({"data": SIZES[:5]}, panel.target[0, :5],
                                                                               np.ones(5))])  # fmt: skip
    assert double.weights.sum() == 14
    both = fit_panel(double, POWER)
    first, second = predict(panel, alone)[0][0], predict(double, both)[0][0]
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_a_law_without_its_asymptote_is_that_law_with_none():
    for law in (POWER, RECTIFIED, BNSL):
        bare = without_asymptote(law)
        assert bare.name == law.name + SUFFIX
        parameters = {each.name: 0.5 for each in law.parameters}
        with_none = law.function({"data": SIZES}, {**parameters, "E": 0.0})
        np.testing.assert_allclose(bare.function({"data": SIZES}, parameters), with_none)
        assert "E" not in bare.names
        assert "E" not in bare.linear


def ragged(count=5):
    """Curves of unlike lengths and levels, some of whose rows are left out."""
    rng = np.random.default_rng(7)
    _, panel = curves_of(RECTIFIED, {"B": 200.0, "E": 1.0, "D0": 60.0, "beta": 0.45}, 0.01, rng, count=count)
    rows = np.arange(len(SIZES)) < rng.integers(5, 10, (count, 1))
    return panel.keep(RECTIFIED, rows)


def test_a_curve_draws_the_same_alone_and_among_others(monkeypatch):
    panel = ragged()
    fit = fit_panel(panel, RECTIFIED)
    curves, counts = [0, 2, 3, 4], [30, 2, 40, 50]
    together = draw(panel, fit, curves, counts, [np.random.default_rng(curve) for curve in curves])
    monkeypatch.setattr(panels, "BATCH_VALUES", 300)
    apart = draw(panel, fit, curves, counts, [np.random.default_rng(curve) for curve in curves])
    for curve, count, one, other in zip(curves, counts, together, apart, strict=True):
        (alone,) = draw(panel, fit, [curve], [count], [np.random.default_rng(curve)])
        assert one.shape == (count, len(RECTIFIED.names))
        np.testing.assert_allclose(one, alone, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(other, alone, rtol=1e-6, atol=1e-6)


def test_the_starts_of_many_curves_are_those_of_each():
    panel = ragged()
    problem = panel.problem(RECTIFIED)
    bounds, precision = Coordinates(RECTIFIED, {}, 0.0).bounds(), np.eye(len(RECTIFIED.names))
    mean = np.zeros(len(RECTIFIED.names))
    together, polished, at_best = panels._started(panel, problem, bounds, mean, precision)
    assert polished == panels.KEPT_STARTS
    assert (at_best >= 1).all()
    for curve in range(len(panel.level)):
        known = panel.weights[curve] > 0
        inputs = {"data": panel.inputs["data"][curve, known]}
        target = panel.target[curve, known]
        starts = grid(panel.coordinates(RECTIFIED, curve), inputs, target, np.ones(len(target)))
        one = problem.at(np.full(len(starts), curve))
        relative = starts - panel.level[curve] * panels.is_coefficient(RECTIFIED)
        weak = np.broadcast_to(precision, (len(starts), *precision.shape))
        noise = np.full(len(starts), panels.STARTED)
        _, objective = descend(one, relative, noise, mean, weak, bounds, 40)
        reached = descend(problem.at([curve]), together[curve][None], noise[:1], mean, weak[:1], bounds, 0)[1]
        assert reached[0] <= objective.min() * (1 + 1e-3) + 1e-6


def test_the_derivative_is_that_of_a_curve_by_itself():
    panel = ragged()
    fit = fit_panel(panel, RECTIFIED)
    problem = panel.problem(RECTIFIED)
    relative = fit.theta - np.outer(panel.level, panels.is_coefficient(RECTIFIED))
    fitted, derivative = problem.jacobian(relative)
    again, same = problem.jacobian(relative, problem.value(relative))
    np.testing.assert_array_equal(again, fitted)
    np.testing.assert_array_equal(same, derivative)
    for curve in range(len(panel.level)):
        inputs = {"data": panel.inputs["data"][curve]}
        one = panel.coordinates(RECTIFIED, curve).jacobian(fit.theta[curve], inputs)
        np.testing.assert_allclose(fitted[curve], one[0], rtol=1e-10)
        np.testing.assert_allclose(derivative[curve], one[1], rtol=1e-9, atol=1e-12)
