"""`worldmodel data`: collect episodes, inspect, convert and render them."""

from worldmodel.apps.data.describing import contact_sheet

__all__ = ["contact_sheet"]
