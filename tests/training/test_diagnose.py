"""Curves that go wrong in one way each, and healthy ones, of which nothing may be said."""

import math
from dataclasses import replace

import pytest

from pocketvision.training.diagnose import Remedy, RunFacts, diagnose
from pocketvision.training.recipe import Recipe

RECIPE = Recipe(epochs=12, lr=5e-4, optimizer="adamw", device="cpu")
CHANCE = math.log(10)


def facts(train: list[float], val: list[float], top1: list[float], **others: object) -> RunFacts:
    """A run of 10 classes and 341 validation images, 60 steps and 20 seconds an epoch."""
    rows = [
        {"epoch": i + 1, "step": 60 * (i + 1), "train_loss": t, "val_loss": v, "val_top1": a, "seconds": 20.0 * (i + 1)}
        for i, (t, v, a) in enumerate(zip(train, val, top1, strict=True))
    ]
    usual: dict[str, object] = {"recipe": replace(RECIPE, epochs=len(rows)), "classes": 10, "val_images": 341}
    return RunFacts(rows=rows, usual_lr=5e-4, **(usual | others))  # type: ignore[arg-type]


HEALTHY = facts(
    [1.9, 1.3, 1.1, 1.0, 0.95, 0.9, 0.88, 0.85, 0.83, 0.82, 0.81, 0.80],
    [0.9, 0.6, 0.5, 0.42, 0.38, 0.35, 0.33, 0.32, 0.31, 0.31, 0.31, 0.31],
    [0.72, 0.82, 0.86, 0.88, 0.89, 0.90, 0.905, 0.91, 0.91, 0.913, 0.915, 0.915],
    train_top1=0.99,
    expected=0.84,
)


def only(found: tuple[Remedy, ...], kind: str) -> Remedy:
    assert [remedy.kind for remedy in found] == [kind]
    return found[0]


def test_nothing_is_said_of_a_healthy_run():
    assert diagnose(HEALTHY) == ()


def test_a_rate_too_low_or_too_high_is_named_with_the_usual_one():
    flat = facts([CHANCE] * 6, [CHANCE] * 6, [0.1] * 6)
    for lr, level in ((1e-7, "too low"), (0.5, "too high")):
        remedy = only(diagnose(replace(flat, recipe=replace(RECIPE, lr=lr))), "not learning")
        assert level in remedy.cause
        assert remedy.fix == "--lr 0.0005"


def test_flat_at_a_usual_rate_means_labels_or_too_few_steps():
    flat = facts([CHANCE] * 6, [CHANCE] * 6, [0.1] * 6)
    assert "pocketvision data" in only(diagnose(flat), "not learning").fix
    short = facts([CHANCE], [CHANCE], [0.1])
    assert only(diagnose(short), "not learning").fix == "--epochs 3"


def test_guessing_the_majority_is_not_learning():
    flat = facts([CHANCE] * 6, [CHANCE] * 6, [0.5] * 6, majority=0.5)
    only(diagnose(flat), "not learning")


def test_learning_labels_that_mean_nothing_by_heart():
    shuffled = facts([2.3, 2.0, 1.5, 1.0, 0.6], [2.3, 2.4, 2.9, 3.5, 4.0], [0.1, 0.12, 0.09, 0.1, 0.11])
    remedy = only(diagnose(shuffled), "memorising")
    assert "labels" in remedy.cause
    assert "fell from 2.30 to 0.60" in remedy.seen
    learning = [row | {"val_loss": 2.3 - 0.1 * row["epoch"]} for row in shuffled.rows]
    assert diagnose(replace(shuffled, rows=learning)) == ()  # accuracy will follow


def test_few_validation_images_are_no_proof_of_wrong_labels():
    """A real fine-tune: 72 photos of 3 classes, 18 to judge it; no fall of the training loss, twice guessing."""
    small = facts([0.818, 0.83, 0.847], [0.9, 0.9, 0.91], [0.666] * 3, classes=3, val_images=18)
    assert diagnose(small) == ()


def test_unequal_classes():
    """19 of 20 images are of one class; its share is the accuracy of guessing."""
    learning = facts([0.6, 0.2, 0.15, 0.12], [0.2, 0.19, 0.18, 0.17], [0.95, 0.955, 0.96, 0.963], majority=0.95)
    two = {"classes": 2, "val_images": 300}
    assert diagnose(replace(learning, **two)) == ()
    stuck = replace(learning, rows=[row | {"train_loss": 0.2, "val_top1": 0.95} for row in learning.rows], **two)
    remedy = only(diagnose(stuck), "not learning")
    assert "most frequent class, 95%" in remedy.cause
    assert "more images of the others" in remedy.fix


TAUGHT = replace(RECIPE, teachers=("teacher",))


def test_the_loss_from_a_teacher_is_judged_by_its_start():
    flat = facts([1.2, 1.19, 1.19, 1.19], [CHANCE] * 4, [0.1] * 4, recipe=replace(TAUGHT, epochs=4))
    assert "labels" in only(diagnose(flat), "not learning").cause
    assert "2.30" not in only(diagnose(flat), "not learning").seen  # of guessing, for labels
    worse = facts([0.5, 0.4, 0.9, 1.5], [2.0, 1.8, 3.0, 5.0], [0.3, 0.4, 0.2, 0.1], recipe=replace(TAUGHT, epochs=4))
    only(diagnose(worse), "diverging")
    short = facts([0.04], [CHANCE], [0.1], recipe=replace(TAUGHT, epochs=1))
    remedy = only(diagnose(short), "not learning")
    assert "fell" not in remedy.seen
    assert "after 1 epoch the" in remedy.seen
    assert remedy.fix == "--epochs 3"


@pytest.mark.parametrize("losses", [[2.3, 1.8, 1.2, 0.8], [2.3, 2.29, 2.28, 2.27]])
def test_batchnorm_that_lags_is_named_before_the_labels(losses: list[float]):
    """MobileNetV3's own momentum of 0.01, 240 steps: at guessing, whatever the training loss does."""
    lagging = facts(losses, [CHANCE] * 4, [0.1] * 4, bn_momentum=0.01)
    remedy = only(diagnose(lagging), "not learning")
    assert "momentum 0.01, cannot follow in 240 steps" in remedy.cause
    assert remedy.fix == "--set bn_momentum=0.1, or --epochs 8"
    assert "labels" in diagnose(replace(lagging, bn_momentum=0.1))[0].fix


def test_over_fitting_by_the_losses_and_by_the_gap():
    by_loss = facts(
        [1.9, 1.2, 0.9, 0.7, 0.6, 0.55, 0.52, 0.5],
        [1.0, 0.7, 0.6, 0.65, 0.75, 0.85, 0.9, 0.95],
        [0.7, 0.78, 0.81, 0.81, 0.80, 0.80, 0.79, 0.79],
        train_top1=1.0,
    )
    remedy = only(diagnose(by_loss), "over-fitting")
    assert "epoch 3" in remedy.seen
    assert "--epochs 4" in remedy.fix
    gap = replace(HEALTHY, train_top1=1.0, rows=[row | {"val_top1": 0.8} for row in HEALTHY.rows], expected=None)
    assert "100.0% of training images are right, 80.0%" in only(diagnose(gap), "over-fitting").seen


def test_a_rising_loss_beside_a_rising_accuracy_is_no_over_fitting():
    rising = replace(HEALTHY, rows=[row | {"val_loss": 0.3 + row["epoch"] / 20} for row in HEALTHY.rows])
    assert diagnose(rising) == ()


def test_accuracy_that_still_rises_asks_for_what_ended_the_run():
    rising = facts([1.9, 1.6, 1.4, 1.2], [1.6, 1.4, 1.2, 1.0], [0.3, 0.45, 0.55, 0.65])
    assert only(diagnose(rising), "still improving").fix == "--epochs 8"
    limited = replace(rising, recipe=replace(RECIPE, epochs=40, time_limit_s=90))
    assert only(diagnose(limited), "still improving").fix == "--time 3"
    assert diagnose(replace(rising, finished=False)) == ()
    impatient = replace(rising, recipe=replace(RECIPE, epochs=300, patience=2))
    assert only(diagnose(impatient), "still improving").fix == "--patience 4"


def test_diverging_asks_for_a_lower_rate():
    found = diagnose(facts([1.9, 1.2, 2.4, 5.0], [1.5, 1.0, 3.0, 9.0], [0.4, 0.6, 0.2, 0.1]))
    assert "--lr 5e-05 and --set clip_norm=1" in only(found, "diverging").fix


def test_too_good_after_one_epoch_asks_for_copies():
    easy = facts([0.5, 0.3, 0.2], [0.1, 0.05, 0.04], [0.995, 0.997, 0.997])
    assert "near copies" in only(diagnose(easy), "too good early").cause


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"gpu": True}, "--device cuda"),
        ({"loading": 0.7}, "--workers 2"),
        ({"recipe": replace(RECIPE, device="cuda"), "gpu": True}, "--batch 128"),
    ],
)
def test_slow_runs_name_the_bottleneck(changes: dict, fix: str):
    slow = replace(HEALTHY, rows=[row | {"seconds": 100 * row["epoch"]} for row in HEALTHY.rows])
    assert diagnose(slow) == ()
    assert only(diagnose(replace(slow, **changes)), "too slow").fix.startswith(fix)


def test_below_what_frozen_features_promised():
    remedy = only(diagnose(replace(HEALTHY, expected=0.95)), "low")
    assert "95.0%" in remedy.seen
    assert "--weights imagenet" in remedy.fix


def test_below_a_classifier_on_pixels_no_weights_are_blamed():
    pixels = replace(HEALTHY, expected=0.95, expected_of="a support-vector machine on pixels", frozen=False)
    remedy = only(diagnose(pixels), "low")
    assert "a support-vector machine on pixels promised at least 95.0%" in remedy.seen
    assert "weights" not in remedy.cause + remedy.fix


def test_two_remedies_agree_on_the_epochs():
    rising = facts([1.9, 1.6, 1.4, 1.2], [1.6, 1.4, 1.2, 1.0], [0.3, 0.45, 0.55, 0.65], expected=0.8)
    improving, low = diagnose(rising)
    assert improving.fix == "--epochs 8"
    assert low.fix.endswith("; --epochs 8")
    assert low.fix.count("--epochs") == 1


def test_an_interrupted_run_is_told_to_go_on():
    stopped = facts([CHANCE] * 2, [CHANCE] * 2, [0.1] * 2, recipe=replace(RECIPE, epochs=40), finished=False)
    assert "--resume" in only(diagnose(stopped), "not learning").fix


def test_a_run_without_validation_says_nothing():
    assert diagnose(replace(HEALTHY, rows=[{"epoch": 1, "step": 60, "train_loss": 2.3, "seconds": 3}])) == ()
