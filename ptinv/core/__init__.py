"""The paper on its own, in nine files, each of which imports only the ones before it:

ddim, attention, unet, vae, text, pictures     Stable Diffusion's parts
model, sampling, pti                           the parts together, the one loop, and the method
"""
