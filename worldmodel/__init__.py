"""What happens next, in latent space? JEPA world-model parts, data, worlds and apps."""

__all__: list[str] = []
