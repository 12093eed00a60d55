"""Raw text in, batches for pretraining out.

In the order of the work: `documents` and `wikipedia` read and clean, `vocabulary` trains a WordPiece vocabulary,
`shards` tokenises in parallel into memory-mapped files, `rows` cuts them into full rows, `batches` swaps and masks.
"""
