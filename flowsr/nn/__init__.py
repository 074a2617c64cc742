"""Ordinary modules that know nothing of probability: the networks inside couplings and encoders."""

from flowsr.nn.batch_norm import BatchNorm, BatchStatistics, batch_statistics
from flowsr.nn.channel_affine import ChannelAffine, initialize_from_data
from flowsr.nn.conv import Conv2d, NormedConv2d, WeightNormConv2d, ZeroConv2d, conv2d
from flowsr.nn.fcn import FCN, Parallel
from flowsr.nn.prepared import Prepared, channels_last
from flowsr.nn.residual_net import ResidualNet
from flowsr.nn.rrdb import RRDB, DenseBlock, RRDBEncoder
from flowsr.nn.rrdb_pyramid import RegressionHead, RRDBPyramid, upsample_nearest

CONDITIONERS = (FCN, DenseBlock, ResidualNet)
"""The networks that compute a coupling's or a level's parameters."""

__all__ = [
    "CONDITIONERS",
    "FCN",
    "RRDB",
    "BatchNorm",
    "BatchStatistics",
    "ChannelAffine",
    "Conv2d",
    "DenseBlock",
    "NormedConv2d",
    "Parallel",
    "Prepared",
    "RRDBEncoder",
    "RRDBPyramid",
    "RegressionHead",
    "ResidualNet",
    "WeightNormConv2d",
    "ZeroConv2d",
    "batch_statistics",
    "channels_last",
    "conv2d",
    "initialize_from_data",
    "upsample_nearest",
]
