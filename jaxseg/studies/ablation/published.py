"""Published scores for comparison, with their sources."""

from types import MappingProxyType

SOURCE = (
    "Y. Zhou, K. Zhang, X. Luo, S. Wang, X. Zhuang, Anatomy Prior Based U-net for Pathology "
    "Segmentation with Attention, STACOM 2020, Table 1"
)
# Mean and standard deviation of the DSC by stage. The columns are EMIDEC's slice regions.
PAPER = MappingProxyType(
    {
        "baseline": ((0.955, 0.009), (0.871, 0.045), (0.622, 0.080), (0.246, 0.102)),
        "attention": ((0.962, 0.009), (0.900, 0.033), (0.718, 0.067), (0.354, 0.130)),
        "awce": ((0.971, 0.014), (0.926, 0.029), (0.769, 0.082), (0.535, 0.153)),
        "awce_penalty": ((0.970, 0.007), (0.916, 0.029), (0.747, 0.082), (0.538, 0.143)),
    }
)
# Stages that the paper calls by another name.
NAMES = MappingProxyType({"awce": "attention+AWCE", "awce_penalty": "attention+AWCE+penalty"})


def display_name(stage: str) -> str:
    """Return the paper's name of a stage, or `stage` itself if the paper has none."""
    return NAMES.get(stage, stage)


# Patient-wise DSC in 3D by source. The columns are Myocardium, Infarction and NoReflow. The values
# are strings so that they appear as printed.
CASES = MappingProxyType(
    {
        "challenge winner, hidden test cases (arXiv:2012.14128)": ("0.8786", "0.7124", "0.7851"),
        "arXiv:2012.14556": ("0.863", "0.622", "0.778"),
        "nnU-Net 2D (as quoted by others, arXiv:2306.14725)": ("0.851", "0.509", "-"),
        "nnU-Net 3D (as quoted by others, arXiv:2306.14725)": ("0.872", "0.688", "-"),
        "EcorC, five folds (as quoted by others, arXiv:2306.14725)": ("0.860", "0.760", "-"),
        "ICPIU-Net, five folds (as quoted by others, Sensors 2022, 22(6):2084)": (
            "0.895",
            "0.783",
            "-",
        ),
        "ICPIU-Net, test cases (as quoted by others, Sensors 2022, 22(6):2084)": (
            "0.877",
            "0.734",
            "-",
        ),
        "expert against expert (as quoted by others, Data 2020, 5(4):89)": ("0.83", "0.69", "-"),
    }
)
