"""`worldmodel data`: collect episodes, inspect, convert and render them."""
