"""Images as tensors: files in and out, MATLAB's bicubic kernel, padding, colour.

Everywhere in flowsr an image is a floating tensor ``(..., C, H, W)`` with values in [0, 1]. What is specific to
super-resolution lives here, because published figures depend on it to the second decimal: which bicubic kernel made
the LR image, when values were rounded to 8 bits, and which luma PSNR-Y was measured on.
"""

from flowsr._support.shapes import parse_size, size_text
from flowsr.images.bicubic import bicubic_down, bicubic_resize, bicubic_up, make_lr
from flowsr.images.colour import rgb_to_gray, rgb_to_y
from flowsr.images.files import encode_png, list_images, pair_by_name, read_image, read_png_text, write_image
from flowsr.images.padding import crop_pair, crop_to, pad_to_multiple
from flowsr.images.values import check_image, reduce_bits, round_to_8bit, to_levels

__all__ = [
    "bicubic_down",
    "bicubic_resize",
    "bicubic_up",
    "check_image",
    "crop_pair",
    "crop_to",
    "encode_png",
    "list_images",
    "make_lr",
    "pad_to_multiple",
    "pair_by_name",
    "parse_size",
    "read_image",
    "read_png_text",
    "reduce_bits",
    "rgb_to_gray",
    "rgb_to_y",
    "round_to_8bit",
    "size_text",
    "to_levels",
    "write_image",
]
