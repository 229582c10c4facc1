"""What the README says of the families is what the registry says."""

from places import ROOT

from multimodal_gen.configs.families.table import families_table

README = ROOT / "README.md"
BEGIN, END = "<!-- families -->\n", "\n<!-- /families -->"


def test_the_table_of_families_is_the_registrys() -> None:
    shown = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == families_table(), "python -m multimodal_gen.configs.families.table prints it"
