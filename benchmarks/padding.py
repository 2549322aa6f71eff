"""Pads that SFT and the reward model compute, in batches drawn at random or of similar length.

Three orders: at random, that of transformers' `group_by_length`, and ours.

Rows are encoded by the program. The seconds are those of forward and backward of a random model over every
tenth batch of an epoch, all orders in turn; a reward model's batch is padded to the longest text of its pairs.

    python -m benchmarks.padding --run runs/quickstart
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.trainer_pt_utils import get_length_grouped_indices

from pipelines.config.load import load_config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, encode_comparisons, encode_demonstrations
from pipelines.data.rows import Comparison, Demonstration
from pipelines.models.policies import open_tokenizer
from pipelines.models.sequence_scores import pad_right
from pipelines.trainers.length_sampler import LengthSampler

SHAPE = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8}


def in_batches(order: Iterable[int], size: int) -> list[list[int]]:
    """Cut an order of rows into batches."""
    rows = list(order)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def seconds(batches: list[list[int]], rows: list[list[list[int]]], model: Any) -> float:
    """Processor seconds of forward and backward over batches; a row may have several texts."""
    start = time.process_time()
    for batch in batches:
        ids, mask = pad_right([text for row in batch for text in rows[row]], "cpu")
        model(input_ids=ids, attention_mask=mask).logits.float().mean().backward()
    return time.process_time() - start


def measure(rows: list[list[list[int]]], size: int) -> dict[str, object]:
    """Pads and seconds of each order; the texts of a row are padded together, as those of a pair are."""
    lengths = [max(map(len, row)) for row in rows]
    tokens = sum(len(text) for row in rows for text in row)
    torch.manual_seed(0)
    orders = {
        "random": in_batches(torch.randperm(len(rows)).tolist(), size),
        "transformers": in_batches(get_length_grouped_indices(lengths, size), size),
        "by_length": in_batches(LengthSampler(lengths, size, seed=0), size),
    }
    pads = {
        name: sum(max(lengths[row] for row in batch) * len(rows[row]) for batch in order for row in batch) - tokens
        for name, order in orders.items()
    }
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=512, max_position_embeddings=2048))
    clipped = [[[token % 512 for token in text[:2048]] for text in row] for row in rows]
    times: dict[str, float] = dict.fromkeys(orders, 0.0)
    for start in range(0, len(orders["random"]), 10):  # every tenth batch, in turn
        for name, order in orders.items():
            times[name] += seconds(order[start : start + 1], clipped, model)
    return {"rows": len(rows), "batch": size, "tokens": tokens, "pads": pads, "seconds": times}


def rows_of(run: Path) -> dict[str, tuple[list[list[list[int]]], int]]:
    """Encoded rows of both stages of a run, each with its texts, and the rows of a batch."""
    config = load_config(run / "config.yaml")
    encoder = ChatEncoder(open_tokenizer(run / "sft", config.model))
    demonstrations = read_rows(run / "data/demonstrations/train.jsonl", Demonstration)
    comparisons = read_rows(run / "data/comparisons/train.jsonl", Comparison)
    sft, _ = encode_demonstrations(
        demonstrations, encoder, config.sft.max_length, config.sft.overlong, config.sft.train_on
    )
    pairs, _ = encode_comparisons(comparisons, encoder, config.reward.max_length, config.reward.overlong)
    sides = [[[*pair["prompt_ids"], *pair[side]] for side in ("chosen_ids", "rejected_ids")] for pair in pairs]
    return {
        "sft": ([[row["input_ids"]] for row in sft], config.sft.per_device_train_batch_size),
        "reward": (sides, config.reward.per_device_train_batch_size),
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--run", type=Path, required=True, help="a run directory with SFT and comparisons done")
    return options


if __name__ == "__main__":
    torch.set_num_threads(1)
    for stage, (encoded, batch) in rows_of(parser().parse_args().run).items():
        json.dump({"stage": stage, **measure(encoded, batch)}, sys.stdout)
        print(flush=True)
