"""`worldmodel demo`: the whole pipeline in the built-in world, by the functions of the commands."""

__all__: list[str] = []
