"""From a checkpoint to files an engine runs, verified before they are written."""
