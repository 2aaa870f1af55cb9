"""README.md runs as it stands, and names nothing that does not exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldmodel import Batch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
