"""Cases of keras.ops: shapes, indices, sorting, scattering, control flow."""

import functools

import numpy as np
from keras import ops

from tests.onnx.cases.numpy_ops import On, _listed

_AT = np.array([2, 0, -1])


def _every(images, numbers):
    """The same numbers for every picture."""
    numbers = np.array([numbers], "float32")
    return ops.tile(
        ops.convert_to_tensor(numbers), (ops.shape(images)[0], *[1] * (numbers.ndim - 1))
    )


TABLES = [
    _listed(
        dict(
            append=(lambda x, z: ops.append(x, z, axis=1), lambda x, y: ops.append(x, y)),
            arange=(
                lambda x: ops.arange(ops.shape(x)[1]),
                lambda x: x * ops.arange(7, dtype="float32"),
                lambda x: ops.arange(1, ops.shape(x)[1] + 5, 2),
                lambda x: ops.arange(0.0, 1.0, 0.3) + x[0, 0, 0],
                lambda x: ops.arange(ops.shape(x)[1], 0, -1, dtype="float32"),
            ),
            argpartition=lambda x: ops.take_along_axis(x, ops.argpartition(x, 3), -1)[..., 3],
            argsort=(
                lambda x: ops.argsort(x),
                lambda x: ops.argsort(x, axis=1),
                lambda k: ops.argsort(k),
                lambda x: ops.argsort(x, axis=None),
                lambda n: ops.take_along_axis(n, ops.argsort(n), -1),
            ),
            sort=(
                lambda x: ops.sort(x),
                lambda x: ops.sort(x, axis=1),
                lambda i: ops.sort(i),
                lambda n: ops.sort(n),
                lambda x: ops.sort(x, axis=0),
                lambda b: ops.sort(b),
            ),
            array_split=(
                lambda x: ops.array_split(x, 3, axis=-1),
                lambda x: ops.array_split(x, [2, 3], axis=-1),
            ),
            associative_scan=(
                lambda x: ops.associative_scan(ops.add, x, axis=1),
                lambda fixed: ops.associative_scan(ops.add, fixed, axis=1),
                lambda x: ops.associative_scan(ops.maximum, x, reverse=True, axis=2),
            ),
            bincount=(
                lambda vi: ops.bincount(vi, minlength=5),
                lambda ids: ops.bincount(ids, minlength=8),
                lambda vi, v: ops.bincount(vi, weights=v, minlength=6),
            ),
            broadcast_to=(
                lambda x: ops.broadcast_to(x[:, :1], ops.shape(x)),
                lambda v: ops.broadcast_to(v, (3, ops.shape(v)[0])),
            ),
            cast=(
                lambda x: ops.cast(x * 9, "int32"),
                lambda n: ops.cast(n, "bool"),
                lambda f: ops.cast(f, "float32"),
                lambda i: ops.cast(i, "float16"),
                lambda x: ops.cast(ops.cast(x, "float16"), "float32"),
                lambda i: ops.cast(i, "uint8"),
                lambda i: ops.cast(i, "bool"),
                lambda x: ops.cast(x, "bfloat16"),
            ),
            concatenate=(
                lambda x, z: ops.concatenate([x, z], axis=1),
                lambda x, i: ops.concatenate([x, i], axis=-1),
                lambda f, i: ops.concatenate([f, i], axis=0),
            ),
            cond=(
                lambda cf, x: ops.cond(cf, lambda: x * 2, lambda: x - 1),
                lambda x: ops.cond(ops.sum(x) > 0, lambda: (x, ops.sin(x)), lambda: (-x, x)),
            ),
            convert_to_tensor=(
                lambda x: ops.convert_to_tensor(x),
                lambda i: ops.convert_to_tensor(i, dtype="float32"),
            ),
            custom_gradient=lambda x: ops.custom_gradient(
                lambda a: (a * 2, lambda *args, upstream: upstream)
            )(x),
            diag=(
                lambda m: ops.diag(m[0]),
                lambda v: ops.diag(v),
                lambda v: ops.diag(v, k=1),
                lambda m: ops.diag(m[0], k=-1),
            ),
            diagflat=(lambda v: ops.diagflat(v), lambda m: ops.diagflat(m[0], k=1)),
            diagonal=(
                lambda m: ops.diagonal(m, axis1=1, axis2=2),
                lambda x: ops.diagonal(x, 1, axis1=2, axis2=1),
            ),
            digitize=(
                lambda x: ops.digitize(x, np.array([-1.0, 0.0, 0.5])),
                lambda i: ops.digitize(i, np.array([-3, 2])),
            ),
            dsplit=lambda fixed: ops.dsplit(fixed, 3),
            dstack=(lambda x, y: ops.dstack([x, y]), lambda v, vp: ops.dstack([v, vp])),
            hsplit=lambda fixed: ops.hsplit(fixed, 4),
            hstack=(lambda x, z: ops.hstack([x, z]), lambda v, vp: ops.hstack([v, vp])),
            vsplit=lambda r: ops.vsplit(r[0], 2),
            vstack=(lambda x, y: ops.vstack([x, y]), lambda v, vp: ops.vstack([v, vp])),
            empty=lambda x: ops.zeros_like(ops.empty(ops.shape(x))),
            expand_dims=(lambda x: ops.expand_dims(x, 1), lambda x: ops.expand_dims(x, (0, -1))),
            eye=(
                lambda x: ops.eye(7) * x[0, 0],
                lambda x: ops.eye(ops.shape(x)[1], 7, k=1),
                lambda m: ops.eye(4, dtype="int32") + ops.cast(m, "int32"),
            ),
            identity=lambda x: ops.identity(7) * x[0, 0],
            tri=(lambda x: ops.tri(7) * x[0, 0], lambda x: ops.tri(ops.shape(x)[1], 7, -1)),
            flip=(
                lambda x: ops.flip(x),
                lambda x: ops.flip(x, axis=1),
                lambda x: ops.flip(x, axis=(0, 2)),
            ),
            fliplr=lambda x: ops.fliplr(x),
            flipud=lambda x: ops.flipud(x),
            fori_loop=(
                lambda x: ops.fori_loop(0, 3, lambda i, a: a * 2 + ops.cast(i, a.dtype), x),
                lambda x: ops.fori_loop(0, ops.shape(x)[1], lambda i, a: a + 1.0, x),
            ),
            full=(
                lambda x: ops.full(ops.shape(x), 2.5) + x,
                lambda x: ops.full(ops.shape(x), 3, "int32"),
            ),
            full_like=(
                lambda x: ops.full_like(x, 2),
                lambda i: ops.full_like(i, 2),
                lambda x: ops.full_like(x, 2, dtype="int32"),
            ),
            ones=(lambda x: ops.ones(ops.shape(x)), lambda x: ops.ones(ops.shape(x), "int32")),
            zeros=(
                lambda x: ops.zeros(ops.shape(x)),
                lambda x: ops.zeros(ops.shape(x), dtype="bool"),
            ),
            get_item=(
                lambda x: ops.get_item(x, (slice(None), 0)),
                lambda x: x[:, -1],
                lambda x: x[..., None, ::2],
                lambda x, ids: x[:, :, ids[0]],
                lambda x: x[:, :, _AT],
                lambda x: x[:, 0, 1:-2],
                lambda x, ci: x[:, :, ci],
                lambda x, rows: x[ops.arange(ops.shape(x)[0]), 0, rows],
            ),
            histogram=(lambda v: ops.histogram(v, 5, (-2.0, 2.0)), lambda v: ops.histogram(v, 4)),
            isin=(
                lambda i: ops.isin(i, np.array([1, 3, -4])),
                lambda i, k: ops.isin(i, k, invert=True),
            ),
            map=(
                lambda x: ops.map(lambda a: ops.sum(a * a), x),
                lambda x: ops.map(lambda a: (a, -a), x),
            ),
            meshgrid=(
                lambda v, vp: ops.meshgrid(v, vp),
                lambda v, vp: ops.meshgrid(v, ops.sin(vp), indexing="ij"),
            ),
            moveaxis=(lambda x: ops.moveaxis(x, 0, -1), lambda x: ops.moveaxis(x, (0, 1), (2, 0))),
            ndim=lambda x: x * ops.ndim(x),
            nonzero=lambda f: ops.nonzero(f),
            pad=(
                lambda x: ops.pad(x, ((0, 0), (2, 1), (0, 3)), constant_values=-2.0),
                lambda i: ops.pad(i, 1),
                lambda x: ops.pad(x, ((0, 0), (0, 0), (2, 1)), "reflect"),
                lambda x: ops.pad(x, ((0, 0), (0, 0), (2, 1)), "symmetric"),
                lambda fixed: ops.pad(fixed, ((0, 0), (1, 2), (2, 1), (0, 0)), "edge"),
                lambda f: ops.pad(f, ((1, 0), (0, 0), (0, 2))),
            ),
            rearrange=(
                lambda x: ops.rearrange(x, "b t m -> (b t) m"),
                lambda fixed: ops.rearrange(fixed, "b (h p) w c -> b h w (p c)", p=2),
            ),
            repeat=(
                lambda x: ops.repeat(x, 3, axis=1),
                lambda x: ops.repeat(x, 2),
                lambda x: ops.repeat(x, np.array([0, 1, 2, 1, 0, 3, 1]), axis=-1),
                lambda i: ops.repeat(i, 2, axis=0),
            ),
            reshape=(
                lambda x: ops.reshape(x, (-1, 7)),
                lambda x: ops.reshape(x, (ops.shape(x)[0], -1)),
                lambda x: ops.reshape(x, [-1]),
            ),
            roll=(
                lambda x: ops.roll(x, 2),
                lambda x: ops.roll(x, -1, axis=1),
                lambda x: ops.roll(x, (1, -2), axis=(0, 2)),
            ),
            rot90=(
                lambda m: ops.rot90(m, axes=(1, 2)),
                lambda x: ops.rot90(x, k=2),
                lambda x: ops.rot90(x, k=3, axes=(0, 1)),
            ),
            scan=(
                lambda x: ops.scan(lambda c, a: (c + a, c * a), x[0], x),
                lambda x: ops.scan(lambda c, a: (c + 1, ops.sum(a) + c), 0.0, x, reverse=True),
            ),
            scatter=lambda i, x: ops.scatter(np.array([[0, 1], [2, 3]]), x[0, 0, :2], (4, 5)),
            scatter_update=(
                lambda x: ops.scatter_update(
                    x, np.array([[0, 0, 1], [0, 0, 3]]), np.array([5.0, 6.0], "float32")
                ),
                lambda m, v: ops.scatter_update(
                    m[0], np.array([[1], [2]]), np.ones((2, 4), "float32")
                ),
            ),
            searchsorted=(
                lambda edges, v: ops.searchsorted(edges, v),
                lambda edges, x: ops.searchsorted(edges, x[0, 0], side="right"),
            ),
            segment_max=(
                lambda x: ops.segment_max(
                    ops.transpose(x, (2, 0, 1)), np.array([0, 0, 2, 1, 2, 2, 4]), 5
                ),
                lambda v, vi: ops.segment_max(v, vi, 5),
            ),
            segment_min=(lambda v, vi: ops.segment_min(v, vi, 5),),
            segment_prod=(lambda v, vi: ops.segment_prod(v, vi, 5),),
            segment_sum=(
                lambda v, vi: ops.segment_sum(v, vi, 5),
                lambda x: ops.segment_sum(
                    ops.transpose(x, (2, 0, 1)), np.array([0, 0, 2, 1, 2, 2, 4]), 5
                ),
            ),
            shape=lambda x: ops.ones(ops.shape(x)[:2]),
            slice=(
                lambda x: ops.slice(x, (0, 0, 2), (ops.shape(x)[0], 1, 3)),
                lambda x, ci: ops.slice(x, (0, 0, ci), (1, 1, 4)),
            ),
            slice_update=(
                lambda x: ops.slice_update(x, (0, 0, 2), np.ones((1, 1, 3), "float32")),
                lambda x, ci: ops.slice_update(x, (0, 0, ci), x[:, :1, :2]),
            ),
            split=(
                lambda x: ops.split(x, [2, 3], axis=-1),
                lambda fixed: ops.split(fixed, 4, axis=1),
                lambda i: ops.split(i, 7, axis=2),
            ),
            squeeze=(
                lambda x: ops.squeeze(x[:, :, :1], -1),
                lambda x: ops.squeeze(x[:1, :, :1], (0, 2)),
            ),
            stack=(lambda x, y: ops.stack([x, y]), lambda x, i: ops.stack([x, i], axis=-1)),
            swapaxes=lambda x: ops.swapaxes(x, 0, -1),
            switch=(lambda ci, x: ops.switch(ci, [lambda a: a, lambda a: -a, lambda a: a * a], x),),
            take=(
                lambda x: ops.take(x, _AT, axis=-1),
                lambda x, ids: ops.take(x, ids, axis=2),
                lambda x: ops.take(x, np.array([0, 3])),
                lambda ids: ops.take(np.arange(15, dtype="float32").reshape(5, 3), ids, axis=0),
                lambda x: ops.take(x, 3, axis=2),
            ),
            take_along_axis=(
                lambda x, k: ops.take_along_axis(x, k, axis=-1),
                lambda x, k: ops.take_along_axis(x, k[:, :1] * 0, axis=1),
                lambda x, i: ops.take_along_axis(x, i % 7, axis=2),
            ),
            tile=(
                lambda x: ops.tile(x, (1, 3, 2)),
                lambda x: ops.tile(x, 2),
                lambda i: ops.tile(i, (2, 1, 1, 1)),
            ),
            top_k=(
                lambda x: ops.top_k(x, 3),
                lambda x: ops.top_k(x, 7),
                lambda b: ops.top_k(b, 2)[0],
            ),
            transpose=(lambda x: ops.transpose(x), lambda x: ops.transpose(x, (1, 0, 2))),
            tril=(lambda x: ops.tril(x), lambda f: ops.tril(f, k=1)),
            triu=(lambda x: ops.triu(x), lambda i: ops.triu(i, k=-1)),
            unique=(lambda k: ops.unique(ops.ravel(k), size=6, fill_value=0),),
            unravel_index=(lambda ids: ops.unravel_index(ids, (2, 3)),),
            unstack=(lambda x: ops.unstack(x, axis=-1),),
            vectorize=lambda x: ops.vectorize(lambda a: a * 2 + 1)(x),
            vectorized_map=lambda x: ops.vectorized_map(lambda a: ops.sum(a, -1) * 2, x),
            view=(lambda x: ops.view(x, "int32"), lambda x: ops.view(x)),
            where=(
                lambda x, y: ops.where(x > 0, x, y),
                lambda f, x, i: ops.where(f, x, i),
                lambda f: ops.where(f),
                lambda f, i: ops.where(f, i, 0),
            ),
            while_loop=(
                lambda x: ops.while_loop(lambda n, a: n < 4, lambda n, a: (n + 1, a * 1.5), (0, x))[
                    1
                ],
                lambda x: ops.while_loop(
                    lambda a: ops.sum(ops.square(a)) < 1e4,
                    lambda a: a * 1.5 + 1.0,
                    (x,),
                    maximum_iterations=50,
                ),
            ),
        )
    ),
]
IMAGES = _listed(
    {
        "image.affine_transform": (
            lambda image: ops.image.affine_transform(
                image, _every(image, [1.1, 0.2, -1, -0.1, 0.9, 0.7, 0, 0])
            ),
            lambda image: ops.image.affine_transform(
                image, _every(image, [1, 0.2, -1, -0.1, 1, 0.7, 0, 0]), "nearest", "reflect"
            ),
        ),
        "image.crop_images": lambda image: ops.image.crop_images(image, 1, 2, 2, 1),
        "image.extract_patches": (
            lambda image: ops.image.extract_patches(image, (3, 2)),
            lambda image: ops.image.extract_patches(image, 3, 2, 1, "same"),
        ),
        "image.extract_patches_3d": lambda film: ops.image.extract_patches_3d(film, (1, 3, 2)),
        "image.gaussian_blur": lambda image: ops.image.gaussian_blur(image, (3, 5), (1.0, 2.0)),
        "image.hsv_to_rgb": lambda image: ops.image.hsv_to_rgb(image),
        "image.map_coordinates": (
            lambda x, p: ops.image.map_coordinates(x[0, 0], p[:1, 0] * 3, 1),
            lambda plane, x: ops.image.map_coordinates(
                plane[0, :, :, 0], [x[0, 0] * 4, x[0, 0] * 3], 0, "nearest"
            ),
        ),
        "image.pad_images": lambda image: ops.image.pad_images(image, 1, 2, 3, 0),
        "image.perspective_transform": lambda image: ops.image.perspective_transform(
            image,
            _every(image, [[0, 0], [0, 5], [5, 0], [5, 5]]),
            _every(image, [[1, 0], [0, 6], [5, 1], [6, 5]]),
        ),
        "image.resize": tuple(
            On(functools.partial(ops.image.resize, size=(7, 11), **settings), "image")
            for settings in (
                *[
                    {"interpolation": kind}
                    for kind in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
                ],
                {"antialias": True},
                {"crop_to_aspect_ratio": True},
                {"pad_to_aspect_ratio": True},
            )
        ),
        "image.rgb_to_grayscale": lambda image: ops.image.rgb_to_grayscale(image),
        "image.rgb_to_hsv": lambda image: ops.image.rgb_to_hsv(image),
        "image.scale_and_translate": lambda fixed: ops.image.scale_and_translate(
            fixed[0],
            (6, 7, 4),
            np.array([0.6, 0.8], "float32"),
            np.array([0.5, -1.0], "float32"),
            (0, 1),
            "linear",
        ),
        "image.sobel_edges": lambda image: ops.image.sobel_edges(image),
        "image.ssim": lambda fixed: ops.image.ssim(fixed, ops.sin(fixed), filter_size=5),
        "image.elastic_transform": lambda image: ops.image.elastic_transform(image, seed=1),
    }
)
TABLES.append(IMAGES)
