"""Arrays as pictures: tiles and gaps, colours, enlargement."""

import cv2
import numpy as np

from vit_jax.report.maps import (
    colored,
    contact_sheet,
    encode_png,
    enlarged,
    filter_sheet,
    mosaic,
    overlay,
    position_sheet,
)


def test_tiles_stand_in_rows_with_a_gap_of_one():
    sheet = mosaic(np.arange(3.0)[:, None, None] * np.ones((3, 1, 2)), 2)
    nan = np.nan
    expected = [[0, 0, nan, 1, 1], [nan] * 5, [2, 2, nan, nan, nan]]
    np.testing.assert_array_equal(sheet, expected)


def test_zero_is_gray_in_filters_and_their_largest_value_full():
    components = np.array([[[[0.0, 0.5, -0.5]]], [[[0.25, 0, 0]]]])
    sheet = filter_sheet(components, 2)
    assert sheet.tolist() == [[[0.5, 1, 0, 1], [0, 0, 0, 0], [1, 0.5, 0.5, 1]]]
    assert filter_sheet(np.ones((1, 1, 1, 4)))[0, 0].tolist() == [1, 1, 1, 1]


def test_places_of_a_large_grid_are_a_choice_that_keeps_its_corners():
    similarity = np.arange(32 * 32.0).reshape(32, 32, 1, 1) * np.ones((1, 1, 32, 32))
    sheet = position_sheet(similarity)
    assert sheet.shape == (14 * 33 - 1, 14 * 33 - 1)
    assert (sheet[0, 0], sheet[-1, -1], sheet[0, -1]) == (0, 1023, 31)


def test_a_map_goes_from_viridis_dark_to_its_yellow_and_a_flat_map_is_dark():
    picture = colored(np.array([[0.1, 0.3]]))
    assert picture.tolist() == [[[68, 1, 84], [253, 231, 37]]]  # its ends, as published
    assert colored(np.full((1, 1), 7.0)).tolist() == [[[68, 1, 84]]]


def test_small_images_keep_square_pixels_and_large_ones_stay():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = enlarged(image)
    assert large.shape == (224, 224, 3)
    np.testing.assert_array_equal(large[::112, ::112], image)
    assert enlarged(large).shape == large.shape


def test_a_map_lies_over_the_gray_image():
    image = np.full((4, 4, 3), 100, np.uint8)
    picture = overlay(image, np.array([[0, 1], [0, 1]]))
    assert picture[0, 0].tolist() == [round(0.55 * c + 45) for c in (68, 1, 84)]
    assert picture[0, -1].tolist() == [round(0.55 * c + 45) for c in (253, 231, 37)]


def test_a_sheet_has_white_between_its_pictures_and_a_png_keeps_every_value():
    dark = np.zeros((2, 3, 3), np.uint8)
    dark[0, 0] = (1, 2, 3)
    sheet = contact_sheet([[dark, dark], [dark, dark]], gap=1)
    assert sheet.shape == (5, 7, 3)
    assert (sheet[2] == 255).all()
    assert (sheet[:, 3] == 255).all()
    read = cv2.imdecode(np.frombuffer(encode_png(sheet), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[..., ::-1], sheet)
