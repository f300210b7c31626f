import numpy as np
import pytest

from keras_seqattn.layers import PatchEmbedding
from tests.helpers import check_layer, randomise, to_numpy

B, C, P, ROWS, COLUMNS, M = 2, 3, 2, 5, 7, 11


def images(seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((B, C, ROWS * P, COLUMNS * P)).astype("float32")


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_definition(data_format, tmp_path):
    layer = PatchEmbedding(M, P, data_format, class_token=True)
    x = images() if data_format == "channels_first" else images().transpose(0, 2, 3, 1)
    out = check_layer(layer, {"images": x}, tmp_path)
    kernel, bias = (to_numpy(w) for w in (layer.projection.kernel, layer.projection.bias))
    np.testing.assert_allclose(out[:, 0], np.tile(to_numpy(layer.token)[0], (B, 1)), atol=1e-6)
    for index in range(ROWS * COLUMNS):
        row, column = (P * n for n in divmod(index, COLUMNS))
        patch = images()[:, :, row : row + P, column : column + P].reshape(B, -1)
        np.testing.assert_allclose(out[:, index + 1], patch @ kernel + bias, rtol=0, atol=1e-5)


def test_no_images_and_images_that_do_not_fit():
    layer = PatchEmbedding(M, P, class_token=True)
    layer(images().transpose(0, 2, 3, 1))
    randomise(layer)
    assert layer(np.zeros((0, 4, 6, C), "float32")).shape == (0, 7, M)
    with pytest.raises(ValueError, match="multiples of patch_size=3"):
        PatchEmbedding(M, 3)(images().transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="data_format must be one of"):
        PatchEmbedding(M, P, "NCHW")
