"""Images as sequences: one vector for each patch."""

import keras
from keras import ops

from keras_seqattn.ops.arguments import checked


@keras.saving.register_keras_serializable(package="keras_seqattn")
class PatchEmbedding(keras.layers.Layer):
    """One vector for each square patch of an image (https://arxiv.org/abs/2010.11929).

    The axes of the kernel are always the channels, rows and columns of a patch, for both data
    formats.

    Args:
        hidden_dim: size m of a vector.
        patch_size: height and width p of a patch.
        data_format: format of the images, "channels_first" or "channels_last".
        class_token: put a learned vector before the vectors of the patches.
        kernel_initializer: as in `keras.layers.Dense`.

    Call arguments:
        images: float (b, c, h, w), or (b, h, w, c); h and w are multiples of p.

    Returns:
        float (b, h / p * w / p, m), row by row; with `class_token`, one vector more.

    Raises:
        ValueError: h or w is not a multiple of p.
    """

    @checked
    def __init__(
        self,
        hidden_dim,
        patch_size,
        data_format="channels_last",
        class_token=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.patch_size = patch_size
        self.data_format = data_format
        self.class_token = class_token
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, images_shape):
        channels = images_shape[1 if self.data_format == "channels_first" else -1]
        self.projection = keras.layers.Dense(
            self.hidden_dim,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build((None, None, channels * self.patch_size**2))
        if self.class_token:
            self.token = self.add_weight(
                name="class_token", shape=(1, 1, self.hidden_dim), initializer="zeros"
            )

    def call(self, images):
        self._check_sizes(images.shape)
        size = self.patch_size
        if self.data_format == "channels_first":
            batch, channels, height, width = ops.shape(images)
            split = (batch, channels, height // size, size, width // size, size)
            order = (0, 2, 4, 1, 3, 5)
        else:
            batch, height, width, channels = ops.shape(images)
            split = (batch, height // size, size, width // size, size, channels)
            order = (0, 1, 3, 5, 2, 4)
        patches = ops.transpose(ops.reshape(images, split), order)
        count = (height // size) * (width // size)
        x = self.projection(ops.reshape(patches, (batch, count, channels * size * size)))
        if not self.class_token:
            return x
        # broadcast_to would fail without images.
        token = ops.add(ops.zeros_like(x[:, :1]), self.token)
        return ops.concatenate([token, x], axis=1)

    def _check_sizes(self, shape):
        """The height and width of images of this shape."""
        sizes = shape[2:] if self.data_format == "channels_first" else shape[1:3]
        if any(size is not None and size % self.patch_size for size in sizes):
            raise ValueError(
                f"{self.path}: images must have heights and widths that are multiples of "
                f"patch_size={self.patch_size}. Received: {tuple(shape)}"
            )
        return sizes

    def compute_output_spec(self, images):
        sizes = self._check_sizes(images.shape)
        count = None
        if None not in sizes:
            count = sizes[0] // self.patch_size * (sizes[1] // self.patch_size) + self.class_token
        return keras.KerasTensor((images.shape[0], count, self.hidden_dim), self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "hidden_dim": self.hidden_dim,
                "patch_size": self.patch_size,
                "data_format": self.data_format,
                "class_token": self.class_token,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            }
        )
        return config
