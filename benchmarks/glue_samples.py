"""GLUE's download with samples in place of the large tasks' tables: a folder of links. Serves the benchmarks here.

QNLI's training rows, and all of QQP and MNLI, are samples; scores on or from them are subset scores, and reports say
so because the row counts are not the official ones.
"""

from __future__ import annotations

from pathlib import Path

# Table of the download's layout -> the sample that stands in for it, below `_partial`
SAMPLES = {
    "QNLI/train.tsv": "QNLI_train_sample8999.tsv",
    "QQP/train.tsv": "QQP_train_sample8999.tsv",
    "QQP/dev.tsv": "QQP_dev_sample1000.tsv",
    "MNLI/train.tsv": "MNLI_train_sample8999.tsv",
    "MNLI/dev_matched.tsv": "MNLI_dev_sample1000.tsv",
    "MNLI/dev_mismatched.tsv": "MNLI_dev_mismatched_textfooler1000.tsv",
}


def link_samples(download: Path, folder: Path) -> Path:
    """Make `folder` link to the tables of `download`, and to its samples where a table is not there; return it."""
    tables = {f"{path.parent.name}/{path.name}": path for path in download.glob("[!_]*/*.tsv")}
    samples = {place: download / "_partial" / name for place, name in SAMPLES.items()}
    for place, path in {**samples, **tables}.items():
        link = folder / place
        if path.exists() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return folder
