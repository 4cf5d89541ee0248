"""MaskedResample and Diversity inside ComfyUI: the core's masked runs in the host's sampler."""
