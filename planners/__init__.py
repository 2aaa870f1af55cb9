"""Which actions are cheapest? One planning loop and many small methods."""

__all__: list[str] = []
