"""The page of all config fields is that of the config there is."""

from pathlib import Path

from configs import reference
from configs.default import get_config
from jaxseg.config.settings import flatten

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    """Else: python -m configs.reference > docs/reference/settings.md."""
    assert (ROOT / reference.PAGE).read_text() == reference.page()


def test_every_field_has_a_meaning():
    fields = {name for name in flatten(get_config().to_dict()) if not name.startswith("anatomy.")}
    found = reference.meanings()
    assert set(found) == fields
    assert [name for name, meaning in found.items() if not meaning] == []
