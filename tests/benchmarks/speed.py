"""What the merge step and the extraction cost, as ratios in one run: `python tests/benchmarks/speed.py`.

- The training step (forward and backward of all steps) against the same matrix products and fused attention, bare.
- One intra and one cross layer against one HGTConv layer of PyG on the same graph, and against two layers of
  `nn.TransformerEncoder` over all patches with block masks; and against these, the bare products of the two layers,
  below which no layer with them can come.
- Extraction against timm's bare forward pass with the same batches.
- The forward pass with attention captured, against the same without.
- The training step compiled by `torch.compile`, against the bare products as they are; and the forward pass compiled,
  against the same as it is. Both are left out where there is no C++ compiler.

Each pair is timed in turns, so that a busy machine slows both; the ratio of the medians counts. Writes
`results/speed_cpu.csv` or `results/speed_cuda.csv`.
"""

import argparse
import csv
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import described
from torch import Tensor, nn
from torch_geometric.nn import HGTConv

import grafeat as gf
from grafeat.attention.layers import RotaryPositions

RESULTS = Path(__file__).parent / "results"
SIDE, BATCH, HEADS = 14, 8, 4


def main() -> None:
    """Times all pairs and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    compiles = device.type == "cuda" or bool(shutil.which("g++"))
    if not compiles:
        print(f"{'; '.join(COMPILED)}: left out, as there is no g++")
    rows = []
    for name, (calls, share, most) in PAIRS.items():
        if name not in COMPILED or compiles:
            ours, reference = pair(*calls(device), max(3, round(share * args.rounds)), device)
            rows.append([name, f"{ours * 1e3:.1f}", f"{reference * 1e3:.1f}", f"{ours / reference:.3f}", most])
            print(*rows[-1], sep="; ", flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"speed_{device.type}.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "ours ms", "reference ms", "ours / reference", "aim, at most", "machine"])
        table.writerows([*row, described()] for row in rows)


def pair(
    first: Callable[[], object], second: Callable[[], object], rounds: int, device: torch.device
) -> tuple[float, float]:
    """Median seconds of both, called in turns, after two calls to warm up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for call, seconds in zip((first, second), taken, strict=True):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 2:
                seconds.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


def step_and_bare(
    width: int, device: torch.device, *, compiled: bool = False
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward of the steps of a two-backbone model, and of their products and attention alone."""
    graph = gf.PatchGraph({"first": (SIDE, SIDE), "second": (SIDE, SIDE)})
    backbones = (("first", width), ("second", width))
    model = gf.GraFeatMerge(gf.MergeConfig(backbones, 10, width=width, heads=HEADS, cross_drop=0.0)).to(
        device
    )
    centres = graph.centres.to(device)
    states = torch.randn(BATCH, graph.num_vertices, width, device=device, requires_grad=True)

    def steps(x: Tensor) -> Tensor:
        angles = model.rotary(centres)
        for step in model.steps:
            x = step(x, graph, angles)
        return x

    called = torch.compile(steps) if compiled else steps
    return lambda: called(states).sum().backward(), bare_products(width, 2 * model.config.depth, device)


def bare_products(width: int, layers: int, device: torch.device) -> Callable[[], None]:
    """Forward and backward of the matrix products and fused attention of so many layers, two backbones, alone."""
    bare = Bare(width, layers=layers).to(device)
    parts = [torch.randn(BATCH, SIDE * SIDE, width, device=device, requires_grad=True) for _ in range(2)]

    def floor() -> None:
        sum(x.sum() for x in bare(parts)).backward()

    return floor


class Bare(nn.Module):
    """The matrix products and fused attention of the steps, and nothing else: the floor."""

    def __init__(self, width: int, *, layers: int) -> None:
        super().__init__()
        shapes = ((width, 3 * width), (2 * width, 2 * width), (2 * width, width))
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(*shape) for shape in shapes) for _ in range(2 * layers)
        )

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """Both backbones' states after all layers."""
        for number in range(len(self.layers) // 2):
            layers = self.layers[2 * number], self.layers[2 * number + 1]
            qkv = [
                layer[0](x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
                for layer, x in zip(layers, parts, strict=True)
            ]
            keys = qkv if number % 2 == 0 else qkv[::-1]
            messages = [
                F.scaled_dot_product_attention(own[0], other[1], other[2])
                for own, other in zip(qkv, keys, strict=True)
            ]
            joined = [
                torch.cat([x, m.transpose(1, 2).flatten(2)], dim=-1)
                for x, m in zip(parts, messages, strict=True)
            ]
            parts = [layer[2](layer[1](x)) for layer, x in zip(layers, joined, strict=True)]
        return parts


def layers_and_hgt(device: torch.device) -> tuple[Callable[[], None], Callable[[], None]]:
    """One intra and one cross layer, and one HGTConv layer over the same complete graph of 2 × 14 × 14 patches."""
    width = 128
    graph = gf.PatchGraph({"first": (SIDE, SIDE), "second": (SIDE, SIDE)})
    layers = [
        kind(graph.names, width, HEADS, shared=False).to(device)
        for kind in (gf.IntraAttention, gf.CrossAttention)
    ]
    rotary, centres = RotaryPositions(width // HEADS).to(device), graph.centres.to(device)
    states = torch.randn(BATCH, graph.num_vertices, width, device=device, requires_grad=True)

    def ours() -> None:
        x = states
        for layer in layers:
            x = layer(x, graph, rotary(centres))
        x.sum().backward()

    relations = [(query, "to", key) for query, key in graph.relations()]
    conv = HGTConv(width, width, (list(graph.names), relations), heads=HEADS).to(device)
    patches = SIDE * SIDE
    one = torch.cartesian_prod(torch.arange(patches), torch.arange(patches)).T
    edges = torch.cat([one + patches * picture for picture in range(BATCH)], dim=1).to(device)
    vertices = {
        name: torch.randn(BATCH * patches, width, device=device, requires_grad=True) for name in graph.names
    }

    def reference() -> None:
        out = conv(vertices, dict.fromkeys(relations, edges))
        sum(x.sum() for x in out.values()).backward()

    return ours, reference


def layers_and_encoder(device: torch.device) -> tuple[Callable[[], None], Callable[[], None]]:
    """One intra and one cross layer, and torch's encoder layers over all patches with the masks that make them so."""
    return layers_and_hgt(device)[0], encoder(device)


def bare_and_encoder(device: torch.device) -> tuple[Callable[[], None], Callable[[], None]]:
    """The bare products of one intra and one cross layer, and the same encoder layers."""
    return bare_products(128, 2, device), encoder(device)


def encoder(device: torch.device) -> Callable[[], None]:
    """Forward and backward of torch's encoder layers over all patches, one with masks for intra, one for cross."""
    own = torch.arange(2 * SIDE * SIDE, device=device) // (SIDE * SIDE)
    blocks = own[:, None] == own
    masks = [torch.zeros(blocks.shape, device=device).masked_fill(out, -torch.inf) for out in (~blocks, blocks)]
    layers = [
        nn.TransformerEncoderLayer(128, HEADS, dim_feedforward=256, dropout=0.0, batch_first=True).to(device)
        for _ in masks
    ]
    states = torch.randn(BATCH, len(own), 128, device=device, requires_grad=True)

    def reference() -> None:
        x = states
        for layer, mask in zip(layers, masks, strict=True):
            x = layer(x, src_mask=mask)
        x.sum().backward()

    return reference


@torch.no_grad()
def captured_and_not(device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward pass of 2 × 14 × 14 patches, 6 steps of 8 heads, width 128."""
    torch.manual_seed(0)
    grids = [gf.FeatureGrid(name, torch.randn(BATCH, 64, SIDE, SIDE, device=device)) for name in "ab"]
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10, width=128, depth=6, heads=8).to(device)

    @torch.no_grad()
    def captured() -> object:
        with gf.capture(model):
            return model(grids)

    @torch.no_grad()
    def plain() -> object:
        return model(grids)

    return captured, plain


def compiled_and_eager(device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward pass of the default merge on 2 × 14 × 14 patches; it is compiled before the first round."""
    torch.manual_seed(0)
    grids = [gf.FeatureGrid(name, torch.randn(BATCH, 64, SIDE, SIDE, device=device)) for name in "ab"]
    plain = gf.PlainModel(gf.GraFeatMerge.for_grids(grids, num_classes=10).to(device), grids)
    features = tuple(grid.features for grid in grids)
    fast = torch.compile(plain)

    @torch.no_grad()
    def compiled() -> object:
        return fast(*features)

    @torch.no_grad()
    def eager() -> object:
        return plain(*features)

    return compiled, eager


def extraction_and_timm(device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """`extract` over 256 digits at 112 pixels, and timm's forward pass over the same batches, already prepared."""
    backbone = gf.load_backbone("bundled/efficientnet_lite0", size=112).to(device)
    digits = gf.load_dataset("mnist5k")[:256]
    like = torch.empty(0, device=device)
    batches = [
        backbone.preparation(part.pictures, like) for part in (digits[i : i + 64] for i in range(0, 256, 64))
    ]
    ready = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]

    def ours() -> object:
        return gf.extract([backbone], digits, device=device, progress=False)

    @torch.no_grad()
    def reference() -> object:
        return [backbone.module.forward_features(batch) for batch in ready]

    return ours, reference


COMPILED: dict[str, Callable[[torch.device], tuple[Callable[[], object], Callable[[], object]]]] = {
    "training step, width 64, compiled, against its bare products": partial(step_and_bare, 64, compiled=True),
    "training step, width 128, compiled, against its bare products": partial(step_and_bare, 128, compiled=True),
    "forward pass compiled against eager": compiled_and_eager,
}
PAIRS = {  # what is called, how many of the rounds, and the aim: our time, at most so many times the reference's
    "training step, width 64, against its bare products": (partial(step_and_bare, 64), 1, 1.25),
    "training step, width 128, against its bare products": (partial(step_and_bare, 128), 1, 1.25),
    "intra and cross layer against PyG HGTConv": (layers_and_hgt, 1 / 5, 0.02),
    "intra and cross layer against TransformerEncoder with block masks": (layers_and_encoder, 1 / 2, 0.667),
    "their bare products against the same TransformerEncoder": (bare_and_encoder, 1 / 2, ""),
    "extraction against timm's bare forward": (extraction_and_timm, 1 / 3, 1.031),
    "forward pass captured against not captured": (captured_and_not, 1, ""),
    **{name: (calls, 1, "") for name, calls in COMPILED.items()},
}

if __name__ == "__main__":
    main()
