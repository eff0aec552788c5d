"""3x3 convolutions on a CPU in C++, twice as fast as those of XLA on two cores.

They support what the network needs: float32, stride 1 and a multiple of 8 output channels. The C++
compiler of the machine builds them at first use, for its processor, in the user's cache folder.
"""

from jaxseg.native.choice import CHOICES, choose, why_not
from jaxseg.native.convolution import convolve_native
from jaxseg.native.library import NativeError, load

__all__ = ["CHOICES", "NativeError", "choose", "convolve_native", "load", "why_not"]
