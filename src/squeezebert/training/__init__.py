"""From labelled examples to checkpoints: finetune, squeeze, distil."""
