"""Recipes: settings chosen from the data and by ranks on validation rows."""

from __future__ import annotations

from tfmtl.recipes.ease_part import EasePart as EasePart
from tfmtl.recipes.ease_part import EaseParts as EaseParts
from tfmtl.recipes.ease_part import EaseSettings as EaseSettings
from tfmtl.recipes.join_ease import JoinedEase as JoinedEase
from tfmtl.recipes.join_ease import join_ease as join_ease
