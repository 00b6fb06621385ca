"""What stands on a backbone: one frozen dataclass per head."""

from dataclasses import dataclass

from .rows import Activation, check, check_choice, check_positive, is_number


@dataclass(frozen=True, slots=True)
class ClassifierHead:
    """Global average pooling, an optional hidden layer, dropout, linear classifier.

    MobileNetV3 has a hidden layer of 1024 or 1280 with hard-swish and no BatchNorm (S1 Tables 1 and 2,
    FACTS A13, C-1); the other families have none (``hidden=0``).
    """

    classes: int
    hidden: int = 0
    act: Activation = "hard_swish"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_positive(classes=self.classes)
        check_choice("ClassifierHead.act", self.act, Activation)
        whole = isinstance(self.hidden, int) and is_number(self.hidden) and self.hidden >= 0
        check("hidden", self.hidden, whole, "a whole number of 0 (no hidden layer) or more; nearest valid: 0")
        fraction = is_number(self.dropout) and 0 <= self.dropout < 1
        check("dropout", self.dropout, fraction, "a number of at least 0 and below 1; nearest valid: 0.2")


Head = ClassifierHead
