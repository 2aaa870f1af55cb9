"""`worldmodel data`: collect episodes, inspect, convert and render them."""

__all__: list[str] = []
