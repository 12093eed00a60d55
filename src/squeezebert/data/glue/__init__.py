"""The nine tasks of GLUE: what they are, their files, their scores, and the leaderboard's submission."""

from squeezebert.data.glue.reading import GlueData, load_glue
from squeezebert.data.glue.scores import glue_metrics, overall, task_score
from squeezebert.data.glue.tasks import GLUE, GlueSplit, GlueTask

__all__ = ["GLUE", "GlueData", "GlueSplit", "GlueTask", "glue_metrics", "load_glue", "overall", "task_score"]
