"""The paper on its own, in nine files, each of which imports only those before it: ddim,
attention, unet, vae, text, pictures, model, sampling, pti."""
