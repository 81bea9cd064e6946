"""Flat operators against scipy.ndimage, their algebra, and the case table."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from morphad.base.errors import BadInputError
from morphad.model.morphology import (
    OPERATORS,
    Case,
    apply_cases,
    black_tophat,
    case_table,
    closing,
    dilate,
    erode,
    gradient,
    opening,
    parse_case,
    transform,
    white_tophat,
)
from morphad.settings import CaseSettings

SIDE = st.integers(1, 9)
SIZE = st.integers(1, 12)  # also larger than the image
BYTES = hnp.arrays(np.uint8, st.tuples(SIDE, SIDE))
FLOATS = hnp.arrays(np.float64, st.tuples(SIDE, SIDE), elements=st.floats(-1e6, 1e6))
IMAGE = st.one_of(BYTES, FLOATS, FLOATS.map(lambda image: image.astype(np.float32)))
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def batch(image):
    return torch.from_numpy(image)[None, None]


def oracle(operator, image, size):
    low, high = (0, 255) if image.dtype == np.uint8 else (-np.inf, np.inf)

    def erosion(x):
        return ndimage.grey_erosion(x, size=size, mode="constant", cval=high)

    def dilation(x):
        return ndimage.grey_dilation(x, size=size, mode="constant", cval=low)

    return {
        "erosion": erosion,
        "dilation": dilation,
        "gradient": lambda x: dilation(x) - erosion(x),
        "opening": lambda x: dilation(erosion(x)),
        "closing": lambda x: erosion(dilation(x)),
        "white_tophat": lambda x: x - dilation(erosion(x)),
        "black_tophat": lambda x: erosion(dilation(x)) - x,
    }[operator](image)


@pytest.mark.parametrize("operator", OPERATORS)
@QUICK
@given(image=IMAGE, height=SIZE, width=SIZE)
def test_every_operator_and_size_equals_scipy(operator, image, height, width):
    got = transform(batch(image), Case(operator, height, width))[0, 0].numpy()
    assert got.dtype == image.dtype
    np.testing.assert_array_equal(got, oracle(operator, image, (height, width)))


@QUICK
@given(image=IMAGE, height=SIZE, width=SIZE)
def test_interior_of_gradient_equals_scipys_own(image, height, width):
    got = gradient(batch(image), height, width)[0, 0].numpy()
    own = ndimage.morphological_gradient(image, size=(height, width), mode="reflect")
    rows, columns = slice(height, image.shape[0] - height), slice(width, image.shape[1] - width)
    np.testing.assert_array_equal(got[rows, columns], own[rows, columns])


@QUICK
@given(image=BYTES, height=SIZE, width=SIZE)
def test_bfloat16_equals_uint8(image, height, width):
    for operator in (erode, dilate, opening, closing):
        exact = operator(batch(image), height, width)
        assert torch.equal(operator(batch(image).to(torch.bfloat16), height, width).to(torch.uint8), exact)


@QUICK
@given(image=IMAGE, first=SIZE, second=SIZE)
def test_sizes_compose(image, first, second):
    if first % 2 == 0 and second % 2 == 0:
        second += 1  # the halves of two even sizes are both on one side: one pixel beside the centre of the sum
    x = batch(image)
    for operator in (erode, dilate):
        twice = operator(operator(x, first, second), second, first)
        assert torch.equal(twice, operator(x, first + second - 1, first + second - 1))


@QUICK
@given(image=BYTES, height=SIZE, width=SIZE)
def test_dilation_is_the_dual_of_erosion(image, height, width):
    x = batch(image)
    turned = (255 - x).flip(-2, -1)
    assert torch.equal(dilate(x, height, width), 255 - erode(turned, height, width).flip(-2, -1))


@QUICK
@given(image=IMAGE, height=SIZE, width=SIZE)
def test_opening_and_closing_are_idempotent_and_bounded(image, height, width):
    x = batch(image)
    opened, closed = opening(x, height, width), closing(x, height, width)
    assert torch.equal(opening(opened, height, width), opened)
    assert torch.equal(closing(closed, height, width), closed)
    assert (opened <= x).all()
    assert (x <= closed).all()
    assert (erode(x, height, width) <= x).all()
    assert (x <= dilate(x, height, width)).all()


def test_differences_of_bytes_do_not_wrap():
    x = torch.tensor([[[[0, 255, 0, 255, 255, 0]]]], dtype=torch.uint8)
    assert gradient(x, 1, 3).tolist() == [[[[255, 255, 255, 255, 255, 255]]]]
    assert white_tophat(x, 1, 2).tolist() == [[[[0, 255, 0, 0, 0, 0]]]]
    assert black_tophat(x, 1, 2).tolist() == [[[[255, 0, 255, 0, 0, 0]]]]  # the border closes, too


def test_even_size_looks_up_and_left_for_erosion_and_down_and_right_for_dilation():
    bright = torch.zeros(1, 1, 3, 3)
    bright[0, 0, 1, 1] = 1
    assert dilate(bright, 2, 2)[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert erode(1 - bright, 2, 2)[0, 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_border_does_not_show_the_size():
    flat = torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
    for operator in (erode, dilate, opening, closing):
        assert torch.equal(operator(flat, 5, 7), flat)
    assert not gradient(flat, 5, 7).any()


def test_any_memory_layout_and_batch_is_one_image_after_the_other():
    x = torch.randint(0, 256, (3, 3, 7, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for operator in OPERATORS.values():
        expected = torch.stack([torch.cat([operator(c[None, None], 2, 3)[0] for c in image]) for image in x])
        assert torch.equal(operator(x, 2, 3), expected)
        assert torch.equal(operator(x.to(memory_format=torch.channels_last), 2, 3), expected)


def test_gradient_flows_back_to_the_pixel_that_was_picked():
    x = torch.tensor([[[[3.0, 1.0, 2.0]]]], dtype=torch.float64, requires_grad=True)
    erode(x, 1, 3).sum().backward()
    assert x.grad.tolist() == [[[[0.0, 3.0, 0.0]]]]


@pytest.mark.parametrize(
    ("x", "size", "error", "shown"),
    [
        (torch.zeros(3, 4, 4), (3, 3), ValueError, r"\(3, 4, 4\)"),
        (torch.zeros(1, 1, 0, 4), (3, 3), ValueError, r"\(1, 1, 0, 4\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int16), (3, 3), TypeError, "torch.int16"),
        (torch.zeros(1, 1, 4, 4), (0, 3), ValueError, "height .* got 0"),
        (torch.zeros(1, 1, 4, 4), (3, -1), ValueError, "width .* got -1"),
        (torch.zeros(1, 1, 4, 4), (3, 2.5), TypeError, "width .* got 2.5"),
    ],
)
@pytest.mark.parametrize("operator", OPERATORS.values())
def test_errors_show_what_was_got(operator, x, size, error, shown):
    with pytest.raises(error, match=shown):
        operator(x, *size)


def test_default_table_has_each_case_once():
    table = case_table(CaseSettings())
    assert len(table) == len(set(table)) == 3 * 48 + 1
    x = torch.randint(0, 256, (1, 1, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert len({transform(x, case).numpy().tobytes() for case in table}) == len(table)


def test_identity_is_kept_once_and_black_images_are_left_out():
    table = case_table(
        CaseSettings(operators=("gradient", "closing", "erosion", "white_tophat"), heights=(1, 1), widths=(1, 2))
    )
    assert [case.name for case in table] == [
        "gradient_1x2", "identity", "closing_1x2", "erosion_1x2", "white_tophat_1x2"
    ]  # fmt: skip


def test_square_table():
    table = case_table(CaseSettings(operators=("erosion",), heights=(3, 5), widths=(5, 3, 7), square=True))
    assert [case.name for case in table] == ["erosion_3x3", "erosion_5x5"]


def test_table_without_cases_is_refused():
    with pytest.raises(BadInputError, match="leave no case"):
        case_table(CaseSettings(operators=("gradient",), heights=(1,), widths=(1,)))
    with pytest.raises(BadInputError, match="leave no case"):
        case_table(CaseSettings(heights=(3,), widths=(5,), square=True))


@QUICK
@given(
    st.builds(
        CaseSettings,
        operators=st.lists(st.sampled_from(list(OPERATORS)), min_size=1).map(tuple),
        heights=st.lists(st.integers(2, 64), min_size=1).map(tuple),
        widths=st.lists(st.integers(1, 64), min_size=1).map(tuple),
    )
)
def test_table_survives_json(given_settings):
    table = case_table(given_settings)
    names = json.loads(json.dumps([case.name for case in table]))
    assert tuple(map(parse_case, names)) == table


@pytest.mark.parametrize(
    "name", ["", "erosion", "erosion_3", "erosion_0x3", "erosion_03x3", "blur_3x3", "erosion_3x3 ", "erosion_3x\u0663"]
)
def test_bad_case_names_are_refused(name):
    with pytest.raises(BadInputError, match="is not a case"):
        parse_case(name)


def test_each_image_gets_its_own_case():
    table = case_table(CaseSettings(operators=("erosion", "gradient"), heights=(1, 3), widths=(1, 2)))
    x = torch.randint(0, 256, (9, 2, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    indices = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 3])
    before = x.clone()
    result = apply_cases(x, indices, table)
    for image, index, got in zip(x, indices, result, strict=True):
        assert torch.equal(got, transform(image[None], table[index])[0])
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("indices", "shown"), [([0], r"\(1,\) for \(2"), ([0, 7], r"0\.\.1, got 0\.\.7"), ([-1, 0], "got -1")]
)
def test_wrong_case_indices_are_refused(indices, shown):
    with pytest.raises(ValueError, match=shown):
        apply_cases(torch.zeros(2, 1, 4, 4), torch.tensor(indices), (Case("identity"), Case("erosion", 3, 3)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("operator", OPERATORS.values())
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_cuda_equals_cpu(operator, dtype):
    x = torch.randint(0, 256, (2, 3, 17, 19), generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(operator(x.cuda(), 4, 5).cpu(), operator(x, 4, 5))
