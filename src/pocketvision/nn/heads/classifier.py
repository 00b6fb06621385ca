"""Classification head."""

from torch import Tensor, nn

from ...spec.heads import ClassifierHead
from ..layers import activation


class Classifier(nn.Module):
    """Global average pooling, [hidden layer, activation], dropout, linear (FACTS A13)."""

    def __init__(self, head: ClassifierHead, c_in: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(c_in, head.hidden) if head.hidden else None
        self.act = activation(head.act if head.hidden else "none")
        self.dropout = nn.Dropout(head.dropout)
        self.linear = nn.Linear(head.hidden or c_in, head.classes)

    def forward(self, features: dict[int, Tensor]) -> Tensor:
        """{stride: [B, C, H, W]} -> logits [B, classes], from the coarsest map."""
        return self.linear(self.dropout(self.embed(features)))

    def embed(self, features: dict[int, Tensor]) -> Tensor:
        """{stride: [B, C, H, W]} -> what the last linear layer sees, [B, hidden or C]."""
        pooled = features[max(features)].mean((2, 3))
        return pooled if self.hidden is None else self.act(self.hidden(pooled))
