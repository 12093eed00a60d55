"""GLUE as one runs it: models under recipes on nine tasks, a table of what came of it, the leaderboard's zip."""
