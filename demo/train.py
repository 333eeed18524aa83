"""Trains the demo checkpoint: `python demo/train.py --work FOLDER --output demo/checkpoint`."""

import argparse
import json
import math
import time
from pathlib import Path

import model as model_module
import torch
import torch.nn.functional as F
from data import Rows, load_novels, split_held_out, train_tokenizer
from export import compare, export
from model import TrainingModel
from tokenizers import Tokenizer
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from transformers import GptOssConfig

WARMUP = 0.03  # share of the run
PEAK_RATE, SINK_RATE, FLOOR = 3e-3, 2e-2, 0.02
BALANCE = 0.01  # weight of the load-balancing loss
SEQUENCE, LONG_SEQUENCE = 256, 512
# share of the run after which rows are long: enough to learn YaRN's stretched positions
LONG_FROM = 0.75


def main() -> None:
    """Prepare the text, then train in `--workers` processes of one thread each.

    Processes that meet once a step lose far less to a busy machine than threads that meet in every
    kernel.
    """
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    load_novels(options.work)
    (options.work / "rendezvous").unlink(missing_ok=True)
    spawn(train, (options,), nprocs=options.workers)


def train(rank: int, options: argparse.Namespace) -> None:
    """One worker: its share of every batch; worker 0 reports, saves and exports."""
    rendezvous = f"file://{(options.work / 'rendezvous').resolve()}"
    distributed.init_process_group("gloo", rendezvous, rank=rank, world_size=options.workers)
    torch.set_num_threads(1)
    if options.compile:  # nearly twice as fast; needs a C++ compiler
        for name in ("fake_quantize", "clamped_swiglu"):
            setattr(model_module, name, torch.compile(getattr(model_module, name), dynamic=False))
    kept, held = split_held_out(load_novels(options.work))
    config = shape()
    tokenizer = train_tokenizer(kept, config.vocab_size)
    rows = Rows(kept, tokenizer, chat_share=0.08, seed=options.seed + rank)
    torch.manual_seed(options.seed)  # all workers start from the same weights
    model = TrainingModel(config)
    if options.compile:
        for block in model.model.layers:
            block.get_submodule("self_attn").compile(dynamic=False)
    optimizer = make_optimizer(model)
    start = saved = time.monotonic()
    smooth, step, done = 0.0, 0, 0.0
    while done < 1:
        done = _progress(step + 1, start, options)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(done)
        length = SEQUENCE if done < LONG_FROM else LONG_SEQUENCE
        size = options.batch * SEQUENCE // length // options.workers
        loss = train_step(model, optimizer, rows.batch(size, length), options.workers)
        step += 1
        smooth = loss if step == 1 else 0.98 * smooth + 0.02 * loss
        if rank == 0 and step % 50 == 0:
            print(
                f"step {step} {done:.1%} loss {smooth:.3f} {time.monotonic() - start:.0f}s",
                flush=True,
            )
        if rank == 0 and time.monotonic() - saved > 240:
            saved = time.monotonic()
            torch.save(model.state_dict(), options.work / "latest.pt")
    minutes = (time.monotonic() - start) / 60
    distributed.destroy_process_group()
    if rank > 0:
        return
    torch.compiler.set_stance("force_eager")  # what follows has other shapes, each seen once
    torch.save(model.state_dict(), options.work / "latest.pt")
    export(model, config, tokenizer, options.output)
    held_ids, held_bytes = held_out_rows(held, tokenizer)
    tokens = step * options.batch * SEQUENCE
    result = {
        "steps": step,
        "tokens": tokens,
        "epochs": round(tokens * 0.92 / len(rows.stream), 2),
        "minutes": round(minutes, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss_train_last": round(smooth, 4),
        "held_out": held_out_loss(model, held_ids, held_bytes),
        "max_logit_difference": compare(model, options.output, held_ids[:4, :-1]),
    }
    print(json.dumps(result, indent=1))


def _progress(step: int, start: float, options: argparse.Namespace) -> float:
    """Share of the run behind us, by steps or by minutes, whichever is further; worker 0's clock
    counts.
    """
    minutes = (time.monotonic() - start) / 60
    done = torch.tensor(min(1.0, max(step / options.steps, minutes / options.minutes)))
    distributed.broadcast(done, 0)
    return done.item()


def shape() -> GptOssConfig:
    """gpt-oss in small: every ratio that can hide a bug differs from 1."""
    return GptOssConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        num_local_experts=16,
        num_experts_per_tok=4,
        sliding_window=32,
        max_position_embeddings=1024,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 256,
        },
        router_aux_loss_coef=BALANCE,
    )


def make_optimizer(model: TrainingModel) -> torch.optim.AdamW:
    """AdamW with decay on matrices only and a faster rate for the sinks, which have few gradients
    to follow.
    """
    named = list(model.named_parameters())
    sinks = [p for n, p in named if n.endswith("sinks")]
    vectors = [p for n, p in named if not n.endswith("sinks") and (p.dim() == 1 or "bias" in n)]
    matrices = [p for n, p in named if p.dim() > 1 and "bias" not in n]
    groups = [
        {"params": matrices, "peak": PEAK_RATE, "weight_decay": 0.1},
        {"params": vectors, "peak": PEAK_RATE, "weight_decay": 0.0},
        {"params": sinks, "peak": SINK_RATE, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def schedule(done: float) -> float:
    """Linear warm-up, then a cosine down to FLOOR; `done` is the share of the run behind us."""
    if done < WARMUP:
        return done / WARMUP
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))


def train_step(
    model: TrainingModel, optimizer: torch.optim.Optimizer, rows: Tensor, workers: int
) -> float:
    """One update on rows (B, S+1) of this worker; returns its cross-entropy in nats a token."""
    logits, balance = model(rows[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    (loss + BALANCE * balance).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    flat *= (1.0 / flat.norm()).clamp(max=1.0)  # clipped to norm 1
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def held_out_rows(held: list[list[str]], tokenizer: Tokenizer) -> tuple[Tensor, int]:
    """Held-out text as rows (B, S+1) that overlap by one token, and its length in bytes."""
    text = "\n\n".join(p for novel in held for p in novel)
    ids = torch.tensor(tokenizer.encode(text).ids)
    rows = ids.unfold(0, SEQUENCE + 1, SEQUENCE)
    return rows, len(tokenizer.decode(rows[:, 1:].flatten().tolist()).encode())


@torch.no_grad()
def held_out_loss(model: TrainingModel, rows: Tensor, size: int) -> dict[str, float]:
    """Nats a token, perplexity and bits a byte over rows (B, S+1)."""
    total = 0.0
    for part in rows.split(16):
        logits, _ = model(part[:, :-1])
        total += float(
            F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
        )
    loss = total / rows[:, 1:].numel()
    figures = {
        "nats_per_token": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": total / math.log(2) / size,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the text and running saves"
    )
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end sooner; the schedule follows"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of one thread; divides the batch"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the elementwise parts"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
