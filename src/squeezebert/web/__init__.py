"""From an exported folder to a static page that answers on the visitor's device, without torch."""
