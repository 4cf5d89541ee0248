"""Whatever comes in, a public function keeps its promise or says in a sentence why it cannot.

Arguments are right more often than not, so that what lies behind the door is reached as well: one
of a call's tensors may have another shape, another type of number, or values that are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayesdiff_core import map_checks, mask, ranking, segments, signals
from bayesdiff_core.recording import Recorder, Recording, splice, take_pixels
from bayesdiff_core.render import heatmap, marks, pictures, plot, text, upsample, viewer_payload
from bayesdiff_core.resample import regions, rules
from bayesdiff_core.resample.candidates import Candidates
from bayesdiff_core.resample.region_choice import choose_regions, composed_latents, uncertainty_of
from bayesdiff_core.signals import Contrast
from bayesdiff_core.uncertainty import RunSettings, Signal
from tests.support.properties import searched

NAN, INF = float("nan"), float("inf")

RAW = re.compile(
    r"size of tensor|dimension|out of range|broadcast|not implemented|Expected|operand|argmin|"
    r"index \d|cannot reshape|OpenCV|array|dtype'|convert float|unpack"
)
"""What numpy, torch and Python say themselves, a ValueError or not."""

DTYPES = [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16]
DTYPES += [torch.float32, torch.float64, torch.complex64]


@dataclass
class Case:
    """Draws the arguments of one call, of which `spoilt` so many are not what they should be."""

    draw: st.DataObject
    left: int

    def pick(self, *options):
        return self.draw.draw(st.sampled_from(options))

    def whole(self, low, high):
        return self.draw.draw(st.integers(low, high))

    def spoil(self) -> bool:
        if self.left and self.pick(False, False, True):
            self.left -= 1
            return True
        return False

    def number(self, good, *wrong):
        if not self.spoil():
            return good
        return self.pick(NAN, INF, -INF, -1, 0, 1e30, *wrong)

    def count(self, good):
        return self.pick(NAN, -1, 0, 2.5, None, "3", 1000) if self.spoil() else good

    def tensor(self, *shape, low=0.0, high=1.0) -> Tensor:
        """Values in a range; spoilt, of another shape, type or size, or with NaN in it."""
        if not self.spoil():
            return self._values(shape, low, high)
        kind = self.pick("shape", "dtype", "value", "value", "list", "grad")
        if kind == "shape":
            return self._values(self._other_shape(shape), low, high)
        values = self._values(shape, low, high)
        if kind == "dtype":
            return values.to(self.pick(*DTYPES))
        if kind == "list":
            return values.tolist()
        if kind == "grad":
            return values.requires_grad_()
        if values.numel():
            wrong = self.pick(NAN, INF, -INF, 3e38, -3e38, 1e-45, -5.0, 7.0)
            values.view(-1)[self.whole(0, values.numel() - 1)] = wrong
        return values

    def labels(self, *shape, low=0, high=3) -> Tensor:
        if not self.spoil():
            return self._values(shape, low, high + 1 - 1e-3).floor().long()
        kind = self.pick("shape", "dtype", "value")
        if kind == "shape":
            return self._values(self._other_shape(shape), low, high).round().long()
        values = self._values(shape, low, high).round().long()
        if kind == "dtype":
            return values.to(self.pick(*DTYPES))
        if values.numel():
            values.view(-1)[0] = self.pick(-7, 99)
        return values

    def _values(self, shape, low, high) -> Tensor:
        kind = self.pick("random", "random", "constant", "steps")
        generator = torch.Generator().manual_seed(self.whole(0, 1 << 30))
        values = low + (high - low) * torch.rand(shape, generator=generator)
        if kind == "constant":
            return torch.full(shape, self.pick(low, high))
        return torch.where(values > (low + high) / 2, high, low) if kind == "steps" else values

    def _other_shape(self, shape):
        shape = list(shape)
        kind = self.pick("fewer", "more", "longer", "empty", "none")
        if kind == "none":
            return ()
        place = self.whole(0, len(shape) - 1) if shape else 0
        if kind == "fewer":
            return (*shape[:place], *shape[place + 1 :])
        if kind == "more":
            return (*shape[:place], 2, *shape[place:])
        if shape:
            shape[place] = 0 if kind == "empty" else shape[place] + self.whole(1, 3)
        return tuple(shape)


def inside(values: Tensor, *shape: int, low=0.0, high=1.0) -> None:
    assert tuple(values.shape) == shape
    assert torch.isfinite(values).all()
    assert values.numel() == 0 or (values.min() >= low and values.max() <= high)


def size_of(case: Case) -> tuple[int, int, int]:
    return case.whole(1, 3), case.whole(1, 7), case.whole(1, 7)


CALLS = {}


def call(function):
    CALLS[function.__name__.replace("_", " ").strip()] = function
    return function


# Maps and masks.


@call
def percentiles(case):
    b, h, w = size_of(case)
    levels = (case.number(30.0), 99.0)
    found = map_checks.percentiles(case.tensor(b, h, w), levels, case.pick(True, False))
    assert found.shape[1] == 2


@call
def above(case):
    b, h, w = size_of(case)
    maps = case.tensor(b, h, w)
    inside(mask.above(maps, case.tensor(b)), *maps.shape)


@call
def threshold_mask(case):
    maps = case.tensor(*size_of(case))
    inside(mask.threshold_mask(maps, case.number(50.0)), *maps.shape)


@call
def grow(case):
    maps = case.tensor(*size_of(case))
    inside(mask.grow(maps, case.number(2.0)), *maps.shape)


@call
def shrink(case):
    maps = case.tensor(*size_of(case))
    inside(mask.grow(maps, -case.number(2.0)), *maps.shape)


@call
def minimum_area(case):
    maps = case.tensor(*size_of(case))
    inside(mask.minimum_area(maps, case.number(3)), *maps.shape)


@call
def feather(case):
    maps = case.tensor(*size_of(case))
    inside(mask.feather(maps, case.number(2.0)), *maps.shape)


@call
def connected_regions(case):
    masks = case.tensor(*size_of(case))
    found = mask.regions(masks)
    assert found.labels.shape == masks.shape and len(found.boxes) == len(masks)
    for labels, boxes in zip(found.labels, found.boxes, strict=True):
        assert [int((labels == i + 1).sum()) for i in range(len(boxes))] == [
            box.area for box in boxes
        ]


@call
def segments_of_a_mask(case):
    b, h, w = size_of(case)
    masks = case.tensor(b, h, w)
    found = segments.segments(masks, case.tensor(b, h, w), case.tensor(b, h, w), case.number(2.0))
    b, h, w = masks.shape
    assert len(found) == b
    for (height, width), items in found:
        assert (height, width) == (h, w)
        for item in items:
            left, top, right, bottom = item.crop_region
            assert 0 <= left < right <= w and 0 <= top < bottom <= h
            assert item.cropped_mask.shape == (bottom - top, right - left)
            assert 0 <= item.confidence <= 1


@call
def corners(case):
    masks = case.tensor(*size_of(case))
    found = segments.corners(masks)
    h, w = masks.shape[-2:]
    for boxes in found:
        assert all(0 <= x < r <= w and 0 <= y < d <= h for x, y, r, d in boxes)


@call
def selection(case):
    by_value = case.pick(True, False)
    selection = segments.Selection(
        percentile=None if by_value else case.number(70.0),
        value=case.number(0.4) if by_value else None,
        grow=case.number(1.0),
        minimum_area=case.number(2),
        feather=case.number(1.5),
    )
    maps = case.tensor(*size_of(case))
    masks = selection.regions(maps, selection.thresholds(maps))
    inside(masks, *maps.shape)
    inside(selection.soften(masks), *maps.shape)


# Signals, ranking.


@call
def late_evaluations(case):
    count = case.count(5)
    assert len(signals.late_evaluations(count)) == count - (count + 1) // 3


@call
def trajectory_variance(case):
    b, h, w = size_of(case)
    denoised = case.tensor(case.whole(1, 4), b, 2, h, w)
    found = signals.trajectory_variance(denoised)
    assert found.shape == (denoised.shape[1], *denoised.shape[3:])
    if denoised.isfinite().all() and denoised.float().abs().max() < 10:
        assert torch.isfinite(found).all() and found.min() >= 0


@call
def trajectory_observer(case):
    b, h, w = size_of(case)
    observer = signals.TrajectoryVariance(case.count(3))
    denoised = [case.tensor(b, 2, h, w) for _ in range(3)]
    for k, prediction in enumerate(denoised):
        observer.observe(k, torch.zeros(b, 2, h, w), torch.ones(()), prediction)
    if all(
        prediction.isfinite().all() and prediction.float().abs().max() < 10
        for prediction in denoised
    ):
        assert torch.isfinite(observer.map()).all() and observer.map().min() >= 0


@call
def contrast(case):
    b, h, w = size_of(case)
    n = case.whole(1, 3)
    levels = {case.number(0.4): torch.tensor(0.4)} if not case.spoil() else {}
    found = signals.contrast(
        lambda z, sigma: case.tensor(n * b, 2, h, w),
        lambda z, sigma: case.tensor(n * b, 2, h, w),
        case.tensor(n * b, 2, h, w),
        lambda sigma, noise, clean: clean + sigma * noise,
        levels,
        torch.Generator().manual_seed(0),
        radius=case.count(1),
        copies=case.count(n),
    )
    assert found.map.shape == (n * b, h, w) and found.error.shape == (n * b,)


@call
def artifact(case):
    b, h, w = size_of(case)
    found = Contrast(case.tensor(b, h, w, low=-1.0), case.tensor(b))
    assert signals.artifact(found, case.tensor(b, h, w)).shape == (b, h, w)


@call
def smooth(case):
    shape = case.pick((2, 5), (1, 1, 1), (2, 3, 4), (1, 2, 3, 4))
    maps = case.tensor(*shape)
    found = signals.smooth(maps, case.count(2))
    assert found.shape == maps.shape
    values = torch.as_tensor(maps).float()
    if torch.isfinite(values).all() and values.abs().max() < 10:
        assert values.min() - 1e-5 <= found.min() <= found.max() <= values.max() + 1e-5


@call
def pool(case):
    b, h, w = size_of(case)
    masks = case.tensor(b, h, w) if case.pick(True, False) else None
    pooling = case.pick("mean", "top10", "best") if case.spoil() else case.pick("mean", "top10")
    maps = case.tensor(b, h, w)
    assert ranking.pool(maps, pooling, masks).shape == (len(maps),)


@call
def rank(case):
    scores = case.tensor(case.whole(0, 6))
    direction = case.pick("ascending", "descending", "up")
    assert sorted(ranking.rank(scores, direction).tolist()) == list(range(len(scores)))


@call
def keep_count(case):
    order, count = case.labels(case.whole(0, 6)), case.count(3)
    assert len(ranking.keep_count(order, count)) == min(len(order), count)


@call
def keep_percent(case):
    order, percent = case.labels(case.whole(0, 6)), case.number(30.0)
    assert len(ranking.keep_percent(order, percent)) <= len(order)


# Recordings and regions.


def recording_of(case, evaluations, batch, space):
    shape = (batch, 2, *space)
    return Recording(
        case.tensor(evaluations, *shape),
        case.tensor(evaluations, *shape),
        torch.linspace(1, 0.1, evaluations),
        torch.linspace(1, 0, evaluations + 1),
        case.tensor(*shape),
    )


def space_of(case):
    return case.pick((1, 1), (3, 4), (2, 2, 3), (5,))


@call
def splice_recordings(case):
    space, b, n, e = space_of(case), case.whole(1, 2), case.whole(1, 3), case.whole(1, 3)
    before, after = recording_of(case, 3, b, space), recording_of(case, e, n * b, space)
    takes = [
        case.labels(b, *space, low=-1, high=n - 1)
        for _ in range(case.whole(0 if case.spoil() else 1, 2))
    ]
    found = splice(before, after, case.tensor(b, 1, *space), takes)
    assert found.states.shape == (3, len(takes) * b, 2, *space)
    assert found.final.shape == (len(takes) * b, 2, *space)


@call
def take_candidates(case):
    space, b, n = space_of(case), case.whole(1, 2), case.whole(1, 3)
    original = case.tensor(b, 2, *space, low=2.0, high=3.0)
    take = case.labels(b, *space, low=-1, high=n - 1)
    found = take_pixels(case.tensor(n * b, 2, *space), original, [take])
    assert found.shape == original.shape
    kept = (take < 0).view(len(take), *[1] * (original.ndim - take.ndim), *take.shape[1:])
    kept = kept.expand_as(original)
    assert torch.equal(found[kept].isnan(), original[kept].isnan())


@call
def start_of_a_part(case):
    recording = recording_of(case, 3, 1, (2, 2))
    step, evaluation = recording.start_of(case.number(0.5))
    assert 0 <= step < 3 and 0 <= evaluation < 3


@call
def recorder(case):
    b, h, w = size_of(case)
    recorder = Recorder(case.count(2), case.number(1.0))
    for k in range(2):
        states = torch.zeros(b, 2, h, w)
        recorder.observe(k, states, torch.ones(()), states)
    found = recorder.finish(torch.zeros(b, 2, h, w), torch.linspace(1, 0, 3))
    assert found is None or found.states.shape == (2, b, 2, h, w)


@call
def region_labels(case):
    space, b = space_of(case), case.whole(1, 3)
    masks = case.tensor(b, 1, *space)
    found = regions.region_labels(masks)
    assert torch.equal(found > 0, masks[:, 0] > 0)
    assert all(box.area > 0 for boxes in regions.region_boxes(found) for box in boxes)


@call
def region_boxes(case):
    space, b = space_of(case), case.whole(1, 3)
    labels = case.labels(b, *space)
    assert len(regions.region_boxes(labels)) == len(labels)


@call
def region_scores(case):
    space, b, n = space_of(case), case.whole(1, 3), case.whole(1, 3)
    labels = case.labels(b, *space)
    maps = case.tensor(n, b, *space)
    found = regions.region_scores(maps, case.tensor(b, 1, *space), labels)
    assert found.shape == (*maps.shape[:2], int(labels.max()))


@call
def choose_candidate(case):
    n, b = case.whole(1, 4), case.whole(0, 4)
    original = case.tensor(b) if case.pick(True, False) else None
    scores = case.tensor(n, b)
    best, better = rules.choose_candidate(scores, original)
    assert best.shape == better.shape == scores.shape[1:]
    assert best.numel() == 0 or (best.min() >= 0 and best.max() < len(scores))


@call
def rules_pick(case):
    n, b, r = case.whole(1, 4), case.whole(1, 3), case.whole(0, 3)
    rule = rules.RULES[case.pick(*rules.RULES)]
    scores, labels = case.tensor(n + 1, b, r), case.labels(b, 3, 3, high=r)
    picked = rule.pick(scores, case.pick(True, False))
    assert picked.shape == scores.shape[1:]
    takes = rule.takes(picked, labels, len(scores) - 1, True)
    assert all(take.shape == labels.shape and take.max() < len(scores) - 1 for take in takes)


@call
def paint(case):
    space, b, r = space_of(case), case.whole(1, 3), case.whole(0, 3)
    picked = case.labels(b, r, low=-1, high=2)
    labels = case.labels(b, *space, high=r)
    found = rules.paint(picked, labels)
    assert found.shape == labels.shape
    assert (found[labels == 0] == -1).all()


@call
def choose_by_region(case):
    space, b, n = case.pick((3, 4), (2, 2, 3)), case.whole(1, 2), case.whole(1, 3)
    found = Candidates(
        case.tensor(n * b, 2, *space),
        case.tensor(b, 2, *space),
        case.tensor(n * b, *space),
        case.tensor(b, *space),
        None,
        None,
    )
    masks = case.tensor(b, 1, *space)
    choice = choose_regions(
        found, masks, case.labels(b, *space), rules.RULES[case.pick(*rules.RULES)],
        contrast_of=lambda z: Contrast(case.tensor(len(z), *space), case.tensor(len(z))),
    )  # fmt: skip
    latents = composed_latents(found, choice)
    assert latents.shape == (len(choice.takes) * b, 2, *space)
    after = uncertainty_of(None, found, choice, masks, RunSettings())
    assert after.batch == len(latents)


# Pictures.


@call
def scale_limits(case):
    b, h, w = size_of(case)
    mode = case.pick("image", "batch", "fixed", "none")
    fixed = (case.number(0.1), case.number(0.7)) if case.pick(True, False) else None
    maps = case.tensor(b, h, w)
    found = heatmap.scale_limits(maps, mode, case.number(1.0), fixed)
    inside(found, len(maps), 2, low=-map_checks.LARGEST, high=map_checks.LARGEST * 1.001)


@call
def normalize(case):
    b, h, w = size_of(case)
    maps = case.tensor(b, h, w)
    inside(heatmap.normalize(maps, case.tensor(b, 2)), *maps.shape)


@call
def colorize(case):
    b, h, w = size_of(case)
    colormap = case.pick(*heatmap.COLORMAPS, "jet")
    maps = case.tensor(b, h, w)
    inside(heatmap.colorize(maps, case.tensor(b, 2), colormap), *maps.shape, 3)


@call
def overlay(case):
    b, h, w = size_of(case)
    strength = case.tensor(b, h, w) if case.pick(True, False) else None
    found = heatmap.overlay(
        case.tensor(b, h, w, 3), case.tensor(b, h, w, 3), case.number(0.5), strength
    )
    inside(found, b, h, w, 3)


@call
def contour(case):
    b, h, w = size_of(case)
    inside(marks.contour(case.tensor(b, h, w, 3), case.tensor(b, h, w)), b, h, w, 3)


@call
def side_by_side(case):
    b, h, w = size_of(case)
    shapes = [(case.pick(1, b), h, case.whole(1, 5), 3) for _ in range(case.whole(0, 3))]
    row = [case.tensor(*shape) for shape in shapes]
    found = marks.side_by_side(*row)
    width = sum(picture.shape[2] for picture in row) + marks.GAP * (len(row) - 1)
    inside(found, max(map(len, row)), row[0].shape[1], width, 3)


@call
def color_bar(case):
    limits = case.tensor(case.whole(1, 2), 2)
    found = marks.color_bar(case.count(80), limits, "inferno", case.pick("", "std"))
    inside(found, len(limits), *found.shape[1:3], 3)


@call
def resized_map(case):
    b, h, w = size_of(case)
    size = (case.count(9), case.count(4))
    maps = case.tensor(b, h, w)
    found, values = upsample.upsample(maps, size), maps.float()
    inside(found, len(maps), *size, low=float(values.min()), high=float(values.max()))


@call
def guided_map(case):
    b, h, w = size_of(case)
    maps, images = case.tensor(b, h, w), case.tensor(case.pick(1, b), 9, 8, 3)
    found = upsample.guided_upsample(maps, images, case.count(1), case.number(1e-3))
    low, high = float(maps.float().min()), float(maps.float().max())
    inside(found, len(maps), *images.shape[1:3], low=low, high=high)


@call
def plot_steps(case):
    shape = case.pick((3,), (1, 1), (2, 4))
    width, height = case.count(128), case.count(64)
    inside(plot.plot_steps(case.tensor(*shape), "std", width, height), height, width, 3)


@call
def plot_histogram(case):
    b, h, w = size_of(case)
    limits = case.tensor(2) if case.pick(True, False) else None
    width, height = case.count(128), case.count(64)
    found = plot.plot_histogram(case.tensor(b, h, w), "", width, height, "magma", limits)
    inside(found, height, width, 3)


@call
def ticks(case):
    low, high = case.number(0.0), case.number(case.pick(1.0, 1e-30, 1e30))
    found = text.nice_ticks(low, high, case.pick(0, 1, 5))
    assert found and all(np.isfinite(value) and label for value, label in found)


@call
def written_text(case):
    picture = np.zeros((20, 30, 3), dtype=np.float32)
    size, place = case.count(13), (case.number(3.0), case.number(4.0))
    text.draw_text(picture, case.pick("", "a", "0.5 std"), place, size, text.FOREGROUND)
    assert text.text_width("abc", size) > 0
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


@call
def drawn_uncertainty(case):
    b, h, w = size_of(case)
    look = pictures.Look(
        display=case.pick(*pictures.DISPLAYS, "none") if case.spoil() else "overlay",
        scale=case.pick("image", "batch", "fixed"),
        limits=(case.number(0.0), case.number(1.0)),
        opacity=case.number(0.7),
        bar=case.pick(True, False),
    )
    maps = case.tensor(b, h, w)
    images = case.tensor(b, 2 * h, 2 * w, 3) if case.pick(True, False) else None
    found = pictures.draw_uncertainty(
        maps, images, look=look, selection=segments.Selection(feather=case.number(1.0))
    )
    inside(found.picture, len(maps), *found.picture.shape[1:3], 3)
    inside(found.mask, len(maps), *(maps.shape[1:] if images is None else images.shape[1:3]))


@call
def viewer_file(case):
    shape = case.pick((1, 4), (2, 3, 4), (1, 2, 3, 4))
    known = {"trajectory": Signal(case.tensor(*shape), "unit")}
    recording = recording_of(case, 2, shape[0], shape[1:]) if case.pick(True, False) else None
    name = case.pick("trajectory", "trajectory", "contrast")
    assert viewer_payload.encode(known, name, (case.count(8), 8), recording)


@pytest.mark.parametrize("spoilt", [0, 1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_it_keeps_its_promise_or_says_why_not(name, spoilt):
    @searched(8 if spoilt == 0 else 25)
    @given(st.data())
    def holds(data):
        try:
            CALLS[name](Case(data, spoilt))
        except ValueError as error:
            assert spoilt or name in REFUSE_ALONE, f"refused without a cause: {error}"
            assert not RAW.search(str(error)), f"not a sentence of ours: {error}"
            assert str(error).endswith("."), f"not a sentence: {error}"

    holds()


REFUSE_ALONE = {
    *("scale limits", "colorize", "rank", "side by side", "region boxes", "viewer file"),
    *("drawn uncertainty", "rules pick"),
}
"""What is drawn for these may be wrong by itself, such as a colormap that there is not."""
