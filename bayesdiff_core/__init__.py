"""Where a diffusion sample is unsure of itself: mathematics in torch, pictures with OpenCV.

The package knows no host. It speaks of a `Denoiser` that a solver calls, of the linear `Trace` of
that solver, of a Laplace posterior on the denoiser's last layer, and of the uncertainty that
reaches the generated latent.
"""
