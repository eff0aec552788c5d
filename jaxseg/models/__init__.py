"""The two sub-networks of the paper's Fig. 2: segmentation generator and weight generator."""

from jaxseg.models.convolution import Convolve, convolve_xla
from jaxseg.models.initialization import initialize
from jaxseg.models.unet import UNet
from jaxseg.models.weight_generator import WeightGenerator

__all__ = ["Convolve", "UNet", "WeightGenerator", "convolve_xla", "initialize"]
