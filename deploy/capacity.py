#!/usr/bin/env python3
"""How large a Redis has to be, and how many of them: a plan for your own figures, and the tables of docs/operations.md.

    deploy/capacity.py --texts 50/s --recipients 3 --waiting 30s --retention 24h --redis 800/s
    deploy/capacity.py --tables

What one text costs in memory was measured (Redis 7.0, `used_memory_dataset`, texts of 100 characters); what one server can
carry depends on the machine: measure it with `cargo bench --bench pipeline`. How shards fall on the masters of a Redis Cluster
is calculated, as the cluster does it; how long a call waits for its turn is simulated.
"""

import argparse
import heapq
import math
import random
import re

# Bytes of one text, with sealing, and what each of its recipients adds: while it waits, and of the record that is kept.
WAITING = (2500, 700)
FINISHED = (1300, 450)
# Redis needs room beside its data: for writes while it rewrites its append-only file, and for fragmentation.
ROOM = 2.0
# Part of a server's capacity to plan with: beyond it waiting grows faster than load.
BUSY = 0.7
SLOTS = 16384
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def slot(tag: str) -> int:
    """The slot of a hash tag: CRC16 (XMODEM), as the Redis Cluster specification has it."""
    crc = 0
    for byte in tag.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc % SLOTS


def busiest(masters: int, shards: int) -> float:
    """Load of the master with most shards `{0}`, `{1}` …, as a multiple of the mean; slots are divided as redis-cli does."""
    held = [0] * masters
    for shard in range(shards):
        held[min(slot(str(shard)) * masters // SLOTS, masters - 1)] += 1
    return max(held) * masters / shards


def waits(load: float, calls: int = 50_000) -> list[float]:
    """How long calls wait for their turn at a server that serves one after another and is busy for `load` of its time,
    in multiples of one call: the median, and what 99 of 100 and 999 of 1000 stay below. Arrivals are random."""
    chance = random.Random(1)
    now, free, waited = 0.0, 0.0, []
    for _ in range(calls):
        now -= math.log(1 - chance.random()) / load
        waited.append(max(0.0, free - now))
        free = max(free, now) + 1
    return [heapq.nlargest(math.ceil(calls * part), waited)[-1] for part in (0.5, 0.01, 0.001)]


def spread_table() -> str:
    """How evenly shards fall on masters, and how much of them that leaves."""
    shards = [8, 16, 32, 64, 128, 256]
    lines = ["| masters | " + " | ".join(f"{count} shards" for count in shards) + " |", "|---" * (len(shards) + 1) + "|"]
    for masters in (2, 3, 4, 6, 8, 12):
        cells = []
        for count in shards:
            most = busiest(masters, count)
            cells.append(f"{most:.2f} (worth {masters / most:.1f})" if count >= masters else "")
        lines.append(f"| {masters} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def waits_table() -> str:
    """What load does to waiting."""
    lines = ["| busy | median | 99 % below | 99.9 % below |", "|---|---|---|---|"]
    for load in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
        lines.append(f"| {load:.0%} | " + " | ".join(f"{wait:.1f} calls" for wait in waits(load)) + " |")
    return "\n".join(lines)


def duration(text: str) -> float:
    """Seconds of `30s`, `24h`."""
    found = re.fullmatch(r"([\d.]+)(ms|s|m|h|d)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: write 30s, 10m or 24h")
    return float(found[1]) * UNITS[found[2]]


def rate(text: str) -> float:
    """Texts a second of `50/s`, `600/m`."""
    count, _, unit = text.partition("/")
    try:
        return float(count) / UNITS[unit]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{text}: write 50/s, 600/m or 9000/h") from None


def plan(asked: argparse.Namespace) -> str:
    """What the figures ask for."""
    cost = lambda parts: parts[0] + parts[1] * asked.recipients
    waiting, kept = asked.texts * asked.waiting, asked.texts * asked.retention
    data = waiting * cost(WAITING) + kept * cost(FINISHED)
    lines = [
        f"texts that wait           {waiting:,.0f} (set queue.capacity well above it)",
        f"texts that are remembered {kept:,.0f} (message.retention)",
        f"data                      {data / 2**20:,.0f} MiB",
        f"memory of Redis, in all   {data * ROOM / 2**20:,.0f} MiB (maxmemory: {data * 1.3 / 2**20:,.0f} MiB)",
    ]
    if asked.redis:
        needed = asked.texts / (asked.redis * BUSY)
        lines.append(f"servers' worth of load    {needed:.2f} (each busy for {BUSY:.0%} of its time)")
        if needed <= 1:
            lines.append("one Redis is enough")
        else:
            enough = ((masters, shards) for masters in range(2, 65) for shards in (16, 32, 64, 128, 256, 512, 1024)
                      if masters / busiest(masters, shards) >= needed)
            masters, shards = next(enough, (None, None))
            lines.append(f"a cluster of              {masters} masters with queue.shards = {shards}" if masters else "more than 64 masters")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/operations.md")
    parser.add_argument("--texts", type=rate, default=1.0, help="texts that arrive in the busiest hour: 50/s")
    parser.add_argument("--recipients", type=float, default=3, help="recipients of a text, on average")
    parser.add_argument("--waiting", type=duration, default=30.0, help="how long a text waits in a bad hour: 30s")
    parser.add_argument("--retention", type=duration, default=86400.0, help="message.retention: 24h")
    parser.add_argument("--redis", type=rate, help="texts that one of your Redis servers can carry: 800/s")
    asked = parser.parse_args()
    print(f"{spread_table()}\n\n{waits_table()}" if asked.tables else plan(asked))


if __name__ == "__main__":
    main()
