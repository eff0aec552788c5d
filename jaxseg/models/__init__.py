"""The two sub-networks of the paper's Fig. 2: segmentation generator and weight generator."""

from jaxseg.models.initialization import initialize
from jaxseg.models.unet import COARSE, UNet
from jaxseg.models.weight_generator import WeightGenerator

__all__ = ["COARSE", "UNet", "WeightGenerator", "initialize"]
