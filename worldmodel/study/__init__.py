"""What has the model learned? Probes and maps of the latent space."""

from worldmodel.study.probes import Probe, principal_components, probe

__all__ = ["Probe", "principal_components", "probe"]
