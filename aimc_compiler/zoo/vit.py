"""ViT-B/16: a transformer encoder on the patches of an image.

Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale", ICLR 2021, table 1:
base has 12 layers, width 768, 12 heads, inner width 3072. Names of parameters are those of
``ViTForImageClassification`` of Hugging Face transformers 5, so that its state dicts load. (Version 4, and files
written by it, put layers under ``vit.encoder.layer`` and called the projections ``attention.attention.query``.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.attention import attend, join_heads, require_heads, split_heads
from aimc_compiler.zoo.building import seeded

DEVIATION = 0.02
EPSILON = 1e-6


class PatchEmbeddings(nn.Module):
    """Patches through one matrix, behind a class token, plus positions (section 3.1, equation 1).

    x: (batch, 3, size, size); returns (batch, 1 + patches, width).
    """

    def __init__(self, size: int, patch: int, width: int) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"patches of {patch} do not divide an image of {size}: choose a multiple of {patch}")
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, patch, stride=patch)})

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](x).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(x.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embeddings


class VitAttention(nn.Module):
    """Attention among all patches: (batch, time, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_heads(width, heads)
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (split_heads(layer(x), self.heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        y: Tensor = self.o_proj(join_heads(attend(query, key, value)))
        return y


class VitLayer(nn.Module):
    """Norm and attention, norm and a two-layer network with GELU, each added to its input (equations 2 and 3)."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = VitAttention(width, heads)
        self.layernorm_before = nn.LayerNorm(width, eps=EPSILON)
        self.layernorm_after = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        y: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.layernorm_after(x))))
        return x + y


class VitEncoder(nn.Module):
    """(batch, 3, size, size) images to states (batch, 1 + patches, width)."""

    def __init__(self, size: int, patch: int, width: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(size, patch, width)
        self.layers = nn.ModuleList(VitLayer(width, heads, inner) for _ in range(layers))
        self.layernorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embeddings(x)
        for layer in self.layers:
            x = layer(x)
        states: Tensor = self.layernorm(x)
        return states


class Vit(nn.Module):
    """Vision transformer on (batch, 3, size, size) images, normalised; returns (batch, classes) logits."""

    def __init__(self, encoder: VitEncoder, width: int, classes: int) -> None:
        super().__init__()
        self.vit = encoder
        self.classifier = nn.Linear(width, classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "layernorm" not in name:
                nn.init.trunc_normal_(parameter, std=DEVIATION)

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.vit(pixel_values)[:, 0])
        return logits


def vit_b16(
    *,
    classes: int = 1000,
    size: int = 224,
    patch: int = 16,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    inner: int = 3072,
    seed: int = 0,
) -> Vit:
    """ViT-B/16: 86 567 656 parameters for 1000 classes and 224 x 224 images. In evaluation mode.

    Example:
        >>> logits = vit_b16()(torch.zeros(1, 3, 224, 224))      # (1, 1000)
    """
    return seeded(lambda: Vit(VitEncoder(size, patch, width, layers, heads, inner), width, classes), seed)
