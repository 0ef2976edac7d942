"""One set of parameters for all backbones of a merge, as for a backbone that stands in it several times."""

import copy

import torch

from grafeat.attention.layers import PerBackbone
from grafeat.merge import GraFeatMerge


@torch.no_grad()
def tied(model: GraFeatMerge) -> GraFeatMerge:
    """A copy in which every backbone has the parameters of the first, so that nothing but their features differs.

    Of the task `repeat`, where features are the same, all backbones then have the same value in every picture.

    Args:
        model: A merge of backbones with as many channels each; stays as it is.

    Raises:
        ValueError: If their channels differ in number.
    """
    channels = {count for _, count in model.config.backbones}
    if len(channels) > 1:
        found = ", ".join(f"{name} {count}" for name, count in model.config.backbones)
        raise ValueError(
            f"model: got backbones of different channels ({found}); expected as many of each; merge the same backbone "
            "under several names, as planted.repeat has it"
        )
    model = copy.deepcopy(model)
    for projection in model.projections[1:]:
        projection.load_state_dict(model.projections[0].state_dict())
    model.types[:] = model.types[:1].clone()
    for module in model.modules():
        if isinstance(module, PerBackbone):
            for layer in module.layers[1:]:
                layer.load_state_dict(module.layers[0].state_dict())
        relation = getattr(module, "relation", None)
        if isinstance(relation, torch.nn.Parameter):
            relation[:] = relation[:1].clone()
    return model
