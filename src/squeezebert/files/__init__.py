"""Tables of text, manifests, checksums and a stopwatch: what every room uses, free of torch."""
