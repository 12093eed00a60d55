"""From an exported folder to answers, without torch."""
