"""The anatomy of a data set as data: its labels, scored regions and inclusion pairs.

An `Anatomy` is plain Python and hashable, so that it can be a static argument of a compiled
function. Its `to_dict` form is stored beside a checkpoint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Labels that stand for their union: the whole infarct is (3, 4).
LabelSet = tuple[int, ...]
# Name of a region and its labels.
Region = tuple[str, LabelSet]

_MAX_LABELS = 256  # label maps are uint8


@dataclass(frozen=True)
class Anatomy:
    """Label set of a data set, the regions scored on it and the prior between its labels.

    Attributes:
      labels: name of each label by value; index 0 is the background.
      inclusions: pairs (inner, outer) of Eq. 5, where inner lies inside outer; may be empty.
      slice_regions: regions scored on each slice (the paper's Table 1), in column order.
      case_regions: regions scored on each case in 3D (the EMIDEC challenge), in column order.

    Raises:
      ValueError: a field is malformed; the message names the field and the entry.
    """

    labels: tuple[str, ...]
    inclusions: tuple[tuple[LabelSet, LabelSet], ...]
    slice_regions: tuple[Region, ...]
    case_regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        _check_inclusions(self.inclusions, self.num_labels)
        _check_regions("slice_regions", self.slice_regions, self.num_labels)
        _check_regions("case_regions", self.case_regions, self.num_labels)

    @property
    def num_labels(self) -> int:
        """Number of labels, background included."""
        return len(self.labels)

    @property
    def whole_regions(self) -> tuple[LabelSet, ...]:
        """Labels that are in no case region, each as its own region, and then the case regions."""
        regions = tuple(values for _, values in self.case_regions)
        scored = {value for values in regions for value in values}
        return tuple((v,) for v in range(self.num_labels) if v not in scored) + regions

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types, with labels by name; `from_dict` inverts this exactly."""
        return {
            "labels": list(self.labels),
            "inclusions": [[self._names(part) for part in pair] for pair in self.inclusions],
            "slice_regions": [[name, self._names(values)] for name, values in self.slice_regions],
            "case_regions": [[name, self._names(values)] for name, values in self.case_regions],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Anatomy":
        """Build an anatomy from the form of `to_dict`.

        Args:
          fields: the four fields, for example
            {"labels": ["background", "cavity", "scar"],
             "inclusions": [[["scar"], ["scar", "cavity"]]],
             "slice_regions": [["Scar", ["scar"]]], "case_regions": [["Scar", ["scar"]]]}.
            Regions are lists, not mappings, because their order is that of a table's columns.

        Raises:
          ValueError: a field is missing, unknown or malformed, or names an unknown label.
        """
        if not isinstance(fields, Mapping):
            raise ValueError(f"anatomy: expected a mapping of fields, got {fields!r}")
        expected = tuple(cls.__dataclass_fields__)
        if set(fields) != set(expected):
            raise ValueError(f"anatomy: expected the fields {list(expected)}, got {list(fields)}")
        labels = _as_tuple("labels", fields["labels"])
        _check_labels(labels)
        return cls(
            labels=labels,
            inclusions=_pairs(fields["inclusions"], labels),
            slice_regions=_named_regions("slice_regions", fields["slice_regions"], labels),
            case_regions=_named_regions("case_regions", fields["case_regions"], labels),
        )

    def _names(self, values: Iterable[int]) -> list[str]:
        return [self.labels[value] for value in values]


def inner_labels(inclusions: Iterable[tuple[LabelSet, LabelSet]]) -> LabelSet:
    """Labels of all inner regions of inclusion pairs, ascending: the pathology."""
    return tuple(sorted({label for inner, _ in inclusions for label in inner}))


def _is_name(value: Any) -> bool:
    # A line break would break tables and messages; a lone surrogate cannot be encoded.
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, tuple):
        raise ValueError(f"labels: expected a tuple of names, got {labels!r}")
    if not all(_is_name(name) for name in labels):
        raise ValueError(f"labels: expected non-empty printable names, got {labels}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels: names must be unique, got {labels}")
    if len(labels) < 2:
        raise ValueError(f"labels: expected the background and at least one more, got {labels}")
    if len(labels) > _MAX_LABELS:
        raise ValueError(f"labels: expected at most {_MAX_LABELS}, got {len(labels)}")


def _check_label_set(field: str, values: Any, num_labels: int) -> None:
    if not isinstance(values, tuple) or not values:
        raise ValueError(f"{field}: expected a non-empty tuple of label values, got {values!r}")
    for value in values:
        # Python counts bool as int, but a bool in place of a label is a mistake.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{field}: label values must be int, got {value!r} in {values}")
        if not 0 <= value < num_labels:
            raise ValueError(f"{field}: label {value} is outside 0..{num_labels - 1}")
    if len(set(values)) != len(values):
        raise ValueError(f"{field}: a label appears twice in {values}")


def _check_inclusions(inclusions: Any, num_labels: int) -> None:
    if not isinstance(inclusions, tuple):
        raise ValueError(f"inclusions: expected a tuple of pairs, got {inclusions!r}")
    for pair in inclusions:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"inclusions: expected pairs (inner, outer), got {pair!r}")
        for part in pair:
            _check_label_set("inclusions", part, num_labels)
            if 0 in part:
                raise ValueError(f"inclusions: expected labels above 0 (background), got {pair}")
        inner, outer = pair
        if not set(inner) < set(outer):
            raise ValueError(
                f"inclusions: inner must be a strict subset of outer, got {inner} and {outer}"
            )


def _check_regions(field: str, regions: Any, num_labels: int) -> None:
    if not isinstance(regions, tuple) or not regions:
        raise ValueError(f"{field}: expected a non-empty tuple of (name, labels), got {regions!r}")
    for region in regions:
        if not isinstance(region, tuple) or len(region) != 2:
            raise ValueError(f"{field}: expected (name, labels), got {region!r}")
        name, values = region
        if not _is_name(name):
            raise ValueError(f"{field}: expected a non-empty printable region name, got {name!r}")
        _check_label_set(f"{field} {name!r}", values, num_labels)
    names = [name for name, _ in regions]
    if len(set(names)) != len(names):
        raise ValueError(f"{field}: region names must be unique, got {names}")


def _as_tuple(field: str, value: Any) -> tuple[Any, ...]:
    # A bare string is iterable too, but would be read character by character.
    if not isinstance(value, list | tuple):
        raise ValueError(f"{field}: expected a list, got {value!r}")
    return tuple(value)


def _values(field: str, names: Any, labels: tuple[str, ...]) -> LabelSet:
    names = _as_tuple(field, names)
    for name in names:
        if name not in labels:
            raise ValueError(f"{field}: unknown label {name!r}; known labels are {list(labels)}")
    return tuple(labels.index(name) for name in names)


def _pairs(pairs: Any, labels: tuple[str, ...]) -> tuple[tuple[LabelSet, LabelSet], ...]:
    read = []
    for pair in _as_tuple("inclusions", pairs):
        if len(_as_tuple("inclusions", pair)) != 2:
            raise ValueError(f"inclusions: expected pairs [inner, outer], got {pair!r}")
        inner, outer = (_values("inclusions", part, labels) for part in pair)
        read.append((inner, outer))
    return tuple(read)


def _named_regions(field: str, regions: Any, labels: tuple[str, ...]) -> tuple[Region, ...]:
    read = []
    for region in _as_tuple(field, regions):
        if len(_as_tuple(field, region)) != 2:
            raise ValueError(f"{field}: expected pairs [name, labels], got {region!r}")
        name, names = region
        read.append((name, _values(f"{field} {name!r}", names, labels)))
    return tuple(read)


# Labels as released, inclusion pairs of Eq. 5, regions of the paper's Table 1 and the challenge.
EMIDEC = Anatomy(
    labels=("background", "cavity", "myocardium", "infarct", "no-reflow"),
    inclusions=(((4,), (4, 3)), ((4, 3), (4, 3, 2))),
    slice_regions=(("LV", (1,)), ("Myo", (2,)), ("Inf", (3,)), ("NoR", (4,))),
    case_regions=(("Myocardium", (2, 3, 4)), ("Infarction", (3, 4)), ("NoReflow", (4,))),
)


def enclosing_region(labels: LabelSet, regions: Sequence[Region]) -> LabelSet | None:
    """The largest region that is a strict superset of `labels`, such as myocardium for infarct."""
    around = [values for _, values in regions if set(values) > set(labels)]
    return max(around, key=len, default=None)


def pair_name(anatomy: Anatomy, pair: tuple[LabelSet, LabelSet]) -> str:
    """Name of an inclusion pair, such as "no-reflow in no-reflow + infarct"."""
    return " in ".join(" + ".join(anatomy.labels[value] for value in part) for part in pair)
