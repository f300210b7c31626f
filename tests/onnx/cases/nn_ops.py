"""Cases of keras.ops: activations, losses, convolutions, pooling, norms, sound, linear algebra."""

import numpy as np
from keras import ops

from tests.onnx.cases.numpy_ops import _listed, _of

_RANDOM = np.random.default_rng(3)


def _weight(*shape):
    return _RANDOM.normal(size=shape).astype("float32")


_W1, _W2, _W3 = _weight(3, 4, 6), _weight(3, 2, 4, 6), _weight(2, 3, 2, 2, 5)
_D1, _D2 = _weight(3, 4, 2), _weight(3, 2, 4, 2)
_P1, _P2 = _weight(1, 8, 5), _weight(1, 1, 8, 5)
_T1, _T2, _T3 = _weight(3, 6, 4), _weight(3, 2, 6, 4), _weight(2, 3, 2, 5, 2)
_MEAN, _SCALE = _weight(7), np.abs(_weight(7)) + 0.1


def _polar(x, p):
    return ops.polar(p, x)


TABLES = [
    _of("x", "n", "i")(
        "relu relu6 elu selu celu gelu silu swish hard_sigmoid hard_silu hard_swish hard_tanh"
        " leaky_relu log_sigmoid softplus softsign soft_shrink hard_shrink tanh_shrink squareplus"
        " sparse_plus sparse_sigmoid"
    ),
    _of("x", "n")("softmax log_softmax sparsemax"),
    _listed(
        dict(
            gelu_approximate=lambda x: ops.gelu(x, approximate=False),
            threshold=lambda x: ops.threshold(x, 0.3, -2.0),
            glu=(lambda line: ops.glu(line), lambda fixed: ops.glu(fixed, axis=1)),
            softmax_axes=(
                lambda x: ops.softmax(x, axis=1),
                lambda x: ops.softmax(x, axis=(1, 2)),
                lambda x: ops.softmax(x, axis=None),
                lambda x: ops.log_softmax(x, axis=(1, 2)),
            ),
            binary_crossentropy=(
                lambda f, p: ops.binary_crossentropy(ops.cast(f, "float32"), p / 9),
                lambda f, x: ops.binary_crossentropy(ops.cast(f, "float32"), x, True),
            ),
            categorical_crossentropy=(
                lambda shares, other_shares: ops.categorical_crossentropy(shares, other_shares),
                lambda shares, x: ops.categorical_crossentropy(shares, x, from_logits=True),
            ),
            sparse_categorical_crossentropy=(
                lambda ids, shares: ops.sparse_categorical_crossentropy(ids, shares),
                lambda ids, x: ops.sparse_categorical_crossentropy(ids, x, from_logits=True),
            ),
            psnr=lambda x, y: ops.psnr(x, y, 2.0),
            one_hot=(
                lambda k: ops.one_hot(k, 5),
                lambda ids: ops.one_hot(ids, 5, axis=1, dtype="int32"),
                lambda rows: ops.one_hot(rows, 6),
            ),
            multi_hot=(lambda ids: ops.multi_hot(ids, 6), lambda vi: ops.multi_hot(vi, 5)),
            in_top_k=lambda rows, r, x: ops.in_top_k(rows, x[:, 0, :5], k=2),
            batch_normalization=(
                lambda x: ops.batch_normalization(x, _MEAN, _SCALE, axis=-1),
                lambda planes: ops.batch_normalization(
                    planes, _MEAN[:4], _SCALE[:4], axis=1, offset=_MEAN[3:], scale=_SCALE[3:]
                ),
            ),
            layer_normalization=(
                lambda x: ops.layer_normalization(x, _SCALE, _MEAN),
                lambda x: ops.layer_normalization(x),
            ),
            rms_normalization=lambda x: ops.rms_normalization(x, _SCALE),
            normalize=(
                lambda x: ops.normalize(x),
                lambda x: ops.normalize(x, axis=1, order=1),
                lambda x: ops.normalize(x, order=3),
            ),
            dot_product_attention=(
                lambda block: ops.dot_product_attention(
                    block[:, :, 0], block[:, :, 1], block[:, :, 2]
                ),
                lambda block: ops.dot_product_attention(
                    block[:, :, 0], block[:, :, 1], block[:, :, 2], is_causal=True, scale=0.3
                ),
            ),
            conv=(
                lambda line: ops.conv(line, _W1),
                lambda line: ops.conv(line, _W1, 2, "same"),
                lambda line: ops.conv(line, _W1, 1, "same", dilation_rate=3),
                lambda plane: ops.conv(plane, _W2, (2, 1), "same"),
                lambda plane: ops.conv(plane, _W2),
                lambda plane: ops.conv(plane, _W2[:, :, :2], 1, "same"),
                lambda plane: ops.conv(plane, _W2, 1, "valid", dilation_rate=(2, 1)),
                lambda film: ops.conv(film, _W3, 1, "same"),
            ),
            conv_transpose=(
                lambda line: ops.conv_transpose(line, _T1, 2),
                lambda line: ops.conv_transpose(line, _T1, 3, "same"),
                lambda plane: ops.conv_transpose(plane, _T2, 2, "same"),
                lambda plane: ops.conv_transpose(plane, _T2, (2, 1)),
                lambda film: ops.conv_transpose(film, _T3, 2, "same"),
            ),
            depthwise_conv=(
                lambda line: ops.depthwise_conv(line, _D1),
                lambda line: ops.depthwise_conv(line, _D1, 2, "same"),
                lambda plane: ops.depthwise_conv(plane, _D2, 1, "same"),
                lambda plane: ops.depthwise_conv(plane, _D2, 2, "valid"),
            ),
            separable_conv=(
                lambda line: ops.separable_conv(line, _D1, _P1, 1, "same"),
                lambda plane: ops.separable_conv(plane, _D2, _P2, 2, "same"),
            ),
            max_pool=(
                lambda line: ops.max_pool(line, 3),
                lambda line: ops.max_pool(line, 3, 2, "same"),
                lambda plane: ops.max_pool(plane, (2, 3), 2, "same"),
                lambda plane: ops.max_pool(plane, 2),
                lambda film: ops.max_pool(film, 2, 1, "same"),
            ),
            average_pool=(
                lambda line: ops.average_pool(line, 3),
                lambda line: ops.average_pool(line, 3, 2, "same"),
                lambda plane: ops.average_pool(plane, (2, 3), 2, "same"),
                lambda plane: ops.average_pool(plane, 2),
                lambda film: ops.average_pool(film, 2, 1, "same"),
            ),
            adaptive_average_pool=(
                lambda fixed: ops.adaptive_average_pool(fixed, (3, 5)),
                lambda plane: ops.adaptive_average_pool(plane, 2),
                lambda line: ops.adaptive_average_pool(line, 4),
            ),
            adaptive_max_pool=(
                lambda fixed: ops.adaptive_max_pool(fixed, (3, 5)),
                lambda plane: ops.adaptive_max_pool(plane, 2),
                lambda line: ops.adaptive_max_pool(line, 4),
            ),
            depth_to_space=lambda plane: ops.depth_to_space(plane, 2),
            space_to_depth=(
                lambda fixed: ops.space_to_depth(fixed, 2),
                lambda fixed: ops.space_to_depth(fixed, 4),
            ),
            unfold=(
                lambda planes: ops.unfold(planes, 2),
                lambda planes: ops.unfold(planes, (3, 2), 1, 1, 2),
            ),
            fold=lambda fixed: ops.fold(ops.reshape(fixed, (-1, 16, 24)), (5, 7), (2, 2)),
            fft=lambda wave, wave2: ops.fft((wave, wave2)),
            fft2=lambda wave, wave2: ops.fft2((wave, wave2)),
            ifft2=lambda wave, wave2: ops.ifft2((wave, wave2)),
            rfft=(
                lambda wave: ops.rfft(wave),
                lambda wave: ops.rfft(wave, 5),
                lambda sound: ops.rfft(sound),
            ),
            irfft=(
                lambda wave, wave2: ops.irfft((wave, wave2)),
                lambda wave, wave2: ops.irfft((wave, wave2), 10),
            ),
            stft=(
                lambda sound: ops.stft(sound, 12, 4, 16),
                lambda sound: ops.stft(sound, 16, 8, 16, center=False),
            ),
            istft=lambda sound: ops.istft(ops.stft(sound, 12, 4, 16), 12, 4, 16),
            extract_sequences=lambda sound: ops.extract_sequences(sound, 9, 4),
            polar=lambda p, x: ops.view_as_real(_polar(x, p)),
            view_as_complex=lambda image: ops.view_as_real(ops.view_as_complex(image[..., :2])),
            view_as_real=lambda image: ops.view_as_real(ops.view_as_complex(image[..., 1:])),
            cholesky=(lambda d: ops.cholesky(d), lambda d: ops.cholesky(d, upper=True)),
            cholesky_inverse=lambda d: ops.cholesky_inverse(ops.cholesky(d)),
            det=(lambda m: ops.det(m), lambda m: ops.det(m[:, :1, :1])),
            inv=(lambda m: ops.inv(m), lambda m: ops.linalg.inv(m[:, :1, :1])),
            solve=(lambda m, r: ops.solve(m, r), lambda m, r: ops.solve(m[0], r[0])),
            solve_triangular=(
                lambda d, r: ops.solve_triangular(d, r, lower=True),
                lambda d, r: ops.solve_triangular(d, r),
            ),
            lu_factor=lambda m: ops.lu_factor(m),
            qr=lambda m: [ops.abs(part) for part in ops.qr(m)],
            slogdet=lambda m: ops.slogdet(m),
            logdet=lambda d: ops.logdet(d),
            pinv=lambda m: ops.pinv(m),
            lstsq=lambda m, r: ops.lstsq(m[0], r[0]),
            eigh=lambda d: ops.eigh(d)[0],
            eig=lambda d: ops.sort(ops.real(ops.eig(d)[0])),
            svd=lambda r: ops.svd(r, compute_uv=False),
            matrix_rank=lambda m: ops.matrix_rank(m),
            norm=(
                lambda x: ops.norm(x),
                lambda x: ops.norm(x, ord=1, axis=-1),
                lambda x: ops.norm(x, axis=1),
                lambda m: ops.norm(m, ord="fro", axis=(1, 2)),
                lambda x: ops.norm(x, ord=np.inf, axis=-1, keepdims=True),
                lambda m: ops.norm(m, ord=1, axis=(1, 2)),
                lambda x: ops.norm(x, ord=3, axis=-1),
            ),
            jvp=lambda x, y: ops.jvp(lambda a: ops.sin(a), (x,), (y,)),
            ctc_loss=lambda ids, line: ops.ctc_loss(
                ops.ones_like(ids[:, :1]),
                ops.softmax(line[:, :9]),
                ops.ones_like(ids[:, 0]),
                ops.ones_like(ids[:, 0]) * 9,
            ),
            ctc_decode=lambda line: ops.ctc_decode(line, ops.ones_like(line[:, 0, 0]) * 20)[0][0],
        )
    ),
]
TABLES[-1]["gelu"] = TABLES[0].pop("gelu") + TABLES[-1].pop("gelu_approximate")
TABLES[-1]["softmax"] = TABLES[1].pop("softmax") + TABLES[-1].pop("softmax_axes")
