"""Recipes: settings chosen from the data and by ranks on validation rows."""

from __future__ import annotations

from tfmtl.recipes.best_epoch import BestEpoch as BestEpoch
from tfmtl.recipes.boosted_part import BoostedPart as BoostedPart
from tfmtl.recipes.calibrate import calibrate as calibrate
from tfmtl.recipes.contextual_weights import FoundPolicy as FoundPolicy
from tfmtl.recipes.contextual_weights import contextual_weights as contextual_weights
from tfmtl.recipes.ease_part import EasePart as EasePart
from tfmtl.recipes.ease_part import EaseParts as EaseParts
from tfmtl.recipes.ease_part import EaseSettings as EaseSettings
from tfmtl.recipes.fit import Choice as Choice
from tfmtl.recipes.fit import Fitted as Fitted
from tfmtl.recipes.fit import fit as fit
from tfmtl.recipes.found_weights import FoundWeights as FoundWeights
from tfmtl.recipes.fusion_weights import fusion_weights as fusion_weights
from tfmtl.recipes.join_boosting import BoostedTask as BoostedTask
from tfmtl.recipes.join_boosting import JoinedBoosting as JoinedBoosting
from tfmtl.recipes.join_boosting import join_boosting as join_boosting
from tfmtl.recipes.join_copy import JoinedCopy as JoinedCopy
from tfmtl.recipes.join_copy import join_copy as join_copy
from tfmtl.recipes.join_ease import JoinedEase as JoinedEase
from tfmtl.recipes.join_ease import join_ease as join_ease
from tfmtl.recipes.ranking_inputs import fill_rates as fill_rates
from tfmtl.recipes.ranking_inputs import ranking_inputs as ranking_inputs
