"""Small backbones of a narrow domain, trained here in seconds on a labelled picture set, then frozen."""

import hashlib
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from tqdm.auto import tqdm

from grafeat.arguments import whole
from grafeat.backbones.augment import augment
from grafeat.backbones.backbone import Backbone
from grafeat.files import check_writable, read_tensors, write_tensors
from grafeat.pictures import PictureSet

Kind = Literal["small_cnn", "small_vit"]
Batch = Float[Tensor, "b c 28 28"]

SIZE, CHANNELS = 28, 64
BATCH = 64
RECIPE = 1  # goes up with every change that changes trained weights, so that saved ones are made anew
EPOCHS: dict[Kind, int] = {"small_cnn": 16, "small_vit": 16}
LEARNING_RATE: dict[Kind, float] = {"small_cnn": 3e-3, "small_vit": 4e-3}
FILE = "trained backbone"


@dataclass(frozen=True)
class _Call:
    """What decides the weights: the same call is not trained twice."""

    kind: Kind
    seed: int
    epochs: int
    pictures: str
    count: int
    content: str
    recipe: int


def train_backbone(
    kind: Kind,
    pictures: PictureSet,
    *,
    name: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    save: str | Path | None = None,
    progress: bool = True,
) -> Backbone:
    """A small backbone trained to tell the classes of a picture set apart, then frozen: 64 × 7 × 7 features.

    `small_cnn` has four 3 × 3 convolutions. `small_vit` has two, as a stem, and then two transformer blocks
    over patches of 4 × 4 pixels. Both see each picture bent, moved, thickened, blurred and noisy in ever new
    ways, so that they serve pictures by other hands too. They learn, on the CPU, from the part `train` of the
    set, or from all of it where it has no parts. 1,797 digits take about 11 s and 20 s on two cores.

    Args:
        kind: `small_cnn` or `small_vit`.
        pictures: Labelled pictures of any size and of two or more classes.
        name: What to call the backbone; its kind if None.
        seed: Decides weights, order and distortions; the global random state stays as it was.
        epochs: Passes over the pictures; 16 if None.
        save: A file (safetensors) for the weights. Where it is there and comes from the same call, it is read
            and nothing is trained; where it comes from another call, it is replaced.
        progress: Whether to show a bar.

    Returns:
        The frozen backbone, which brings every picture to 28 × 28 and normalises it.

    Raises:
        TypeError: If `seed` or `epochs` is no whole number.
        ValueError: If the kind is unknown; if the pictures have no labels, or of one class only; if `epochs`
            is below 1 or `seed` below 0; if a file that is not of this function stands at `save`: it stays as it is.
        OSError: If `save` cannot be written, which is tried before the training.

    Source: a transformer on a convolutional stem: Xiao et al., "Early Convolutions Help Transformers See
        Better" (NeurIPS 2021); ours pools instead of striding.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind: got {kind!r}; expected small_cnn or small_vit; wrap others with Backbone(…)")
    chosen = pictures.train if "train" in pictures.parts else pictures
    labels = _checked_labels(chosen)
    seed, default = whole("seed", seed, least=0), EPOCHS[kind]
    epochs = default if epochs is None else whole("epochs", epochs, remedy=f"leave it out for {default}")
    call = _Call(kind, seed, epochs, chosen.name, len(chosen), _content(chosen, labels), RECIPE)
    path = None if save is None else Path(save)
    if path is not None and _kept(path, call):
        return load_trained(path, name=name)
    if path is not None:
        check_writable(path)
    trained, _ = learned(kind, resized(chosen), labels, seed=seed, epochs=epochs, progress=progress)
    if path is not None:
        write_tensors(path, trained.state_dict(), kind=FILE, about={"call": asdict(call)})
    return _backbone(trained, call, name)


def load_trained(path: str | Path, *, name: str | None = None) -> Backbone:
    """The backbone that `train_backbone` saved.

    Args:
        path: The file.
        name: What to call the backbone; its kind if None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or not a file of `train_backbone`.
    """
    tensors, about = read_tensors(path, kind=FILE)
    try:
        call = _Call(**about["call"])
        if call.kind not in get_args(Kind):
            raise ValueError(f"kind {call.kind!r}")
        trained = Trained(call.kind)
        trained.load_state_dict(tensors)
        return _backbone(trained, call, name)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        raise ValueError(
            f"path: {path} is damaged or from another version ({reason}); expected what train_backbone saves; train it "
            "anew"
        ) from error


# The two modules


class Trained(nn.Module):
    """A body and the mean and standard deviation of what it was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.body = small_cnn() if kind == "small_cnn" else SmallViT()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    def forward(self, pictures: Batch) -> Float[Tensor, "b 64 7 7"]:
        """Features of pictures (b, 3, 28, 28) in [0, 1]."""
        normal = (pictures - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)
        return self.body(normal.contiguous(memory_format=torch.channels_last))


def small_cnn() -> nn.Sequential:
    """Four 3 × 3 convolutions, the last one beside a shortcut: (b, 3, 28, 28) to (b, 64, 7, 7)."""
    deeper = _Residual(_convolution(CHANNELS, CHANNELS))
    return nn.Sequential(*_stem(), _convolution(CHANNELS, CHANNELS), deeper)


class SmallViT(nn.Module):
    """Two transformer blocks over the patches of a convolutional stem: (b, 3, 28, 28) to (b, 64, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_stem())
        places = build_sincos2d_pos_embed([7, 7], dim=CHANNELS, temperature=10)
        self.positions = nn.Parameter(places / 2)
        blocks = [
            Block(CHANNELS, num_heads=4, mlp_ratio=2, qkv_bias=True, init_values=0.1) for _ in range(2)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, pictures: Batch) -> Float[Tensor, "b 64 7 7"]:
        """Features of pictures (b, 3, 28, 28), normalised."""
        patches = self.stem(pictures).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(patches)).transpose(1, 2).unflatten(2, (7, 7))


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return features + self.inner(features)


def _stem() -> list[nn.Module]:
    return [_convolution(3, 16), nn.MaxPool2d(2), _convolution(16, CHANNELS), nn.MaxPool2d(2)]


def _convolution(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
    )


# Training


def learned(
    kind: Kind,
    pictures: Batch,
    labels: Int[Tensor, " n"],
    *,
    classes: int | None = None,
    seed: int,
    epochs: int,
    progress: bool,
) -> tuple[Trained, nn.Linear]:
    """A body, and the head that reads its mean patch, trained together to tell the classes apart; both in `eval`.

    Args:
        kind: `small_cnn` or `small_vit`.
        pictures: Pictures as `resized` gives them.
        labels: Their classes.
        classes: How many there are; by default up to the largest label.
        seed: Decides weights, order and distortions; the global random state stays as it was.
        epochs: Passes over the pictures.
        progress: Whether to show a bar.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        model = Trained(kind).to(memory_format=torch.channels_last)
        _set_statistics(model, pictures)
        head = nn.Linear(CHANNELS, classes or int(labels.max()) + 1)
        _optimise(model, head, pictures, labels, epochs, progress)
    return model.eval(), head.eval()


def _set_statistics(model: Trained, pictures: Batch) -> None:
    seen = augment(pictures[:: max(1, len(pictures) // 1000)]).expand(-1, 3, -1, -1)
    model.mean.copy_(seen.mean(dim=(0, 2, 3)))
    model.std.copy_(seen.std(dim=(0, 2, 3)).clamp(min=1e-3))


def _optimise(
    model: Trained, head: nn.Linear, pictures: Batch, labels: Int[Tensor, " n"], epochs: int, progress: bool
) -> None:
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.05)
    batch = min(BATCH, len(pictures))
    rate, steps = LEARNING_RATE[model.kind], epochs * (len(pictures) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    for _ in tqdm(range(epochs), desc=f"training {model.kind}", unit="epoch", disable=not progress):
        for rows in torch.randperm(len(pictures)).split(batch)[: len(pictures) // batch]:
            features = model(augment(pictures[rows]).expand(-1, 3, -1, -1))
            loss = F.cross_entropy(head(features.mean(dim=(2, 3))), labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def resized(pictures: PictureSet) -> Batch:
    """All pictures at 28 × 28; one channel where every picture is grey, which makes the variants cheaper."""
    whole = pictures.pictures
    groups = [whole] if isinstance(whole, Tensor) else [picture[None] for picture in whole]
    small = [F.interpolate(group, (SIZE, SIZE), mode="bicubic", antialias=True) for group in groups]
    resized = torch.cat(small).clamp(0, 1)
    return resized[:, :1] if bool((resized == resized[:, :1]).all()) else resized


def _checked_labels(pictures: PictureSet) -> Int[Tensor, " n"]:
    labels = pictures.labels
    if labels is None or len(labels.unique()) < 2:
        found = "no labels" if labels is None else "labels of one class only"
        raise ValueError(f"pictures: {pictures!r} has {found}; expected two or more classes; pass labels=")
    return labels


# Files


def _content(pictures: PictureSet, labels: Int[Tensor, " n"]) -> str:
    return hashlib.sha256(pictures.fingerprint.encode() + labels.numpy().tobytes()).hexdigest()


def _kept(path: Path, call: _Call) -> bool:
    """Whether the file has what this call would give; a file that is not ours is refused, so that it stays."""
    if not path.is_file():
        return False
    try:
        _, about = read_tensors(path, kind=FILE)
    except ValueError as error:
        raise ValueError(f"save: a file stands there that is not of train_backbone; it stays; {error}") from error
    return about.get("call") == asdict(call)


def _backbone(trained: Trained, call: _Call, name: str | None) -> Backbone:
    return Backbone(
        trained.body,
        name=name or call.kind,
        tap="",
        size=SIZE,
        mean=tuple(trained.mean.tolist()),
        std=tuple(trained.std.tolist()),
        licence="that of its training pictures",
        source=f"trained on {call.count:,} pictures of {call.pictures} (seed {call.seed})",
    )
