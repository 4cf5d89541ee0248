"""The nodes, one a file; what they share with the host lies in `host`."""

from .contrast import Contrast
from .demo_latent import DemoLatent
from .demo_model import DemoModel
from .demo_prompt import DemoPrompt
from .diversity import Diversity
from .laplace_fit import LaplaceFit
from .load_laplace import LoadLaplace
from .masked_resample import MaskedResample
from .rank import Rank
from .save_laplace import SaveLaplace
from .uncertain_ksampler import UncertainKSampler
from .uncertain_ksampler_advanced import UncertainKSamplerAdvanced
from .uncertain_sampler_custom import UncertainSamplerCustom
from .uncertainty_heatmap import UncertaintyHeatmap
from .uncertainty_plot import UncertaintyPlot

NODES = [
    LaplaceFit,
    UncertainKSampler,
    UncertaintyHeatmap,
    MaskedResample,
    UncertainKSamplerAdvanced,
    UncertainSamplerCustom,
    UncertaintyPlot,
    Rank,
    Contrast,
    Diversity,
    SaveLaplace,
    LoadLaplace,
    DemoModel,
    DemoPrompt,
    DemoLatent,
]
