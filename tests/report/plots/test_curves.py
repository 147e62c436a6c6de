"""ROC, leakage against accuracy and bytes, reconstructions: numbers, choices, odd input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from privbench.errors import UsageError
from privbench.report.plots import against, drawings, reconstructions, roc
from privbench.report.plots.labels import spread
from privbench.report.plots.vulnerable import vulnerable
from privbench.report.report import Report
from privbench.scoring.score import Pictures, Score


def named(report: Report, **names: str) -> Report:
    return replace(report, names=replace(report.names, **names))


def test_a_roc_has_the_reports_numbers(lira: Report) -> None:
    table = roc([lira]).numbers
    (curve,) = lira.curves
    for name in ("fpr", "tpr", "low", "high"):
        assert tuple(table[name]) == getattr(curve, name)
    assert set(table["reliable_from"]) == {0.016}
    (line,) = [x for x in lira.roc().axes[0].lines if x.get_linewidth() == 1.5]
    assert np.array_equal(line.get_xdata(), curve.fpr)
    assert np.array_equal(line.get_ydata()[1:], curve.tpr[1:])


def test_a_roc_prefers_one_of_each_regime_and_says_what_it_left_out(lira: Report) -> None:
    def other(number: int, **names: str) -> Report:
        moved = replace(lira.curves[0], tpr=(0.0, 0.03, 0.2 + number / 100, 1.0))
        return replace(named(lira, **names), curves=(moved,))

    many = [other(i, variant=f"v{i}") for i in range(9)] + [other(20, regime="dpsgd")]
    drawing = roc([*many, replace(lira, status="same_as"), lira])
    drawn = drawing.numbers["curve"].unique()
    assert len(drawn) == 6
    assert any(name.startswith("dpsgd") for name in drawn)
    assert "6 of 12 curves are drawn" in drawing.caption


def test_of_many_seats_the_one_that_learns_most_is_drawn(
    lira: Report, rate: Callable[..., Score]
) -> None:
    curves = tuple(replace(lira.curves[0], seat=seat) for seat in ("a", "b", "c"))
    scores = (rate("a", 0.6, "auc"), rate("b", 0.9, "auc"), rate("c", math.nan, "auc"))
    table = roc([replace(lira, curves=curves, scores=scores)]).numbers
    assert table["seat"].unique().tolist() == ["b"]


def test_a_roc_without_curves_is_refused(host: Report, lira: Report) -> None:
    for report in (host, replace(lira, status="failed"), replace(lira, curves=())):
        with pytest.raises(UsageError, match="again=true"):
            roc([report])
    with pytest.raises(UsageError):
        roc([])


def test_the_most_vulnerable_stand_beside_all(lira: Report, rate: Callable[..., Score]) -> None:
    some = (rate("anyone", 0.9, "auc_exposed", 0.5), rate("anyone", math.nan, "auc_outliers", 0.5))
    scores = tuple(replace(score, goal="membership") for score in (*lira.scores, *some))
    drawing = vulnerable([lira, replace(lira, scores=scores)])
    table = drawing.numbers
    assert table["records"].tolist() == ["all records", "a tenth, most exposed by shadow models"]
    assert table["auc"].tolist() == [0.6, 0.9]
    assert "0.900 for a tenth, most exposed by shadow models, 0.600 for all" in drawing.caption
    for none in ([lira], [replace(lira, scores=scores, status="same_as")], []):
        with pytest.raises(UsageError, match="vulnerable"):
            vulnerable(none)


def test_points_have_the_reports_numbers(host: Report, lira: Report) -> None:
    drawing = against([host, lira], "accuracy")
    table = drawing.numbers.set_index("row")
    worst = next(score for score in host.scores if score.seat == "worst")
    for row, score in (("080-host", worst), ("020-lira", lira.scores[0])):
        for name in ("value", "low", "high", "blind", "n"):
            assert table.loc[row, name] == getattr(score, name)
    assert table.loc["080-host", "accuracy"] == 0.9
    assert table.loc["080-host", ["accuracy_low", "accuracy_high"]].tolist() == [0.873, 0.923]
    assert len(drawing.figure.axes) == 2
    sent = against([host, lira], "bytes_per_sample")
    assert sent.numbers["bytes_per_sample"].tolist() == [34_939.61, 6.65]
    assert all(axes.get_xscale() == "log" for axes in sent.figure.axes)


def test_points_that_are_no_numbers_are_left_out(host: Report, lira: Report) -> None:
    nan = replace(lira, scores=(replace(lira.scores[0], value=math.nan),))
    odd = [
        nan,
        replace(host, status="failed"),
        replace(host, target=replace(host.target, accuracy=None)),
    ]
    assert len(against([*odd, lira], "accuracy").numbers) == 1
    with pytest.raises(UsageError, match="both a score and accuracy"):
        against(odd, "accuracy")
    with pytest.raises(UsageError, match="accuracy or bytes_per_sample"):
        against([lira], "epsilon")
    assert against([lira], "accuracy").numbers["accuracy_low"].tolist() == [0.955]  # none was kept


def test_nothing_is_drawn_against_what_does_not_differ(lira: Report) -> None:
    same = {drawing.name for drawing in drawings([lira, named(lira, variant="again")])}
    assert not same & {"leakage-accuracy", "leakage-bytes"}


def test_names_keep_apart(lira: Report) -> None:
    reports = [named(lira, variant=f"v{i}") for i in range(40)]
    drawing = against(reports, "accuracy")
    (axes,) = drawing.figure.axes
    tall = axes.get_position().height * drawing.figure.get_size_inches()[1]
    heights = sorted(text.get_position()[1] * tall for text in axes.texts)
    assert len(heights) == 24 + 1
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.13
    assert heights[0] >= -1e-9
    assert heights[-1] <= tall + 1e-9
    assert "Only the 24 highest points" in drawing.caption


def test_labels_stay_where_they_fit() -> None:
    assert spread([3.0, 2.0, 0.5], 0.1, 3.0) == [3.0, 2.0, 0.5]
    assert spread([1.0, 1.0], 0.2, 3.0) == pytest.approx([1.1, 0.9])
    assert spread([], 0.1, 1.0) == []


def test_reconstructions_show_worst_median_and_best(crowd: Callable[..., Report]) -> None:
    report = crowd(5)
    drawing = reconstructions(report)
    table = drawing.numbers.drop_duplicates("place").set_index("place")
    assert table["seat"].to_dict() == {
        "worst": "device-0",
        "median": "device-2",
        "best": "device-4",
    }
    for _, row in table.iterrows():
        score = next(score for score in report.scores if score.seat == row["seat"])
        assert (row["value"], row["low"], row["high"]) == (score.value, score.low, score.high)
    assert drawing.private
    assert table.loc["worst", "rms_rebuilt"] == 1
    assert table.loc["worst", "rms_blind"] == 2
    assert reconstructions(named(report, goal="inversion")).private
    worse = replace(
        report.scores[0], seat="device-0", metric="psnr_db", value=8.0, low=7, high=9, blind=12
    )
    caption = reconstructions(replace(report, scores=(*report.scores, worse))).caption
    assert "worse than the blind guess: 8.0 dB, where that has 12.0 dB" in caption


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_pixel_by_pixel(
    channels: int, host: Report, images: Callable[..., Pictures]
) -> None:
    kept = replace(images("device-1", channels), true=np.arange(4 * channels * 64, dtype=np.uint8)
                   .reshape(4, channels, 8, 8))  # fmt: skip
    figure = reconstructions(replace(host, pictures=(kept,))).figure
    (image,) = figure.axes[0].images
    whole = np.asarray(image.get_array())
    opaque = whole[whole[..., 3].any(axis=1)][:, whole[..., 3].any(axis=0), :3]
    first = opaque[:128:16, :128:16]
    assert np.array_equal(first, np.broadcast_to(np.moveaxis(kept.true[0], 0, -1), (8, 8, 3)))
    assert set(np.unique(whole[..., 3])) == {0, 255}


def test_without_images_there_is_a_reason(host: Report, images: Callable[..., Pictures]) -> None:
    flat = Pictures("device-0", *(np.zeros((2, 5), dtype=np.uint8) for _ in range(3)))
    for pictures in ((), (flat,), (images("device-0", 2),)):
        with pytest.raises(UsageError, match="records are no images"):
            reconstructions(replace(host, pictures=pictures))


def test_seats_without_a_score_come_last(host: Report, images: Callable[..., Pictures]) -> None:
    kept = (images("stranger"), images("device-3"), images("device-1"))
    table = reconstructions(replace(host, pictures=kept)).numbers
    assert table["seat"].unique().tolist() == ["device-1", "device-3", "stranger"]
