import altair as alt
import jsonschema

from canaryaudit.report.charts import charts
from canaryaudit.report.charts.base import Rows
from tests.report.summary.test_build import several_methods


def test_every_chart_is_valid_though_it_is_not_validated_when_it_is_drawn():
    specs = {chart.name: chart.spec for chart in charts(several_methods())}
    assert len(specs) >= 7
    schema = jsonschema.Draft7Validator(alt.load_schema())
    for name, spec in specs.items():
        assert schema.is_valid(spec), name
    assert not schema.is_valid(specs["training"] | {"layer": [{"mark": "nonsense"}]})


def test_copies_of_a_chart_share_its_rows():
    chart = alt.Chart(Rows(values=[{"a": 1}])).mark_point()
    assert chart.copy().data is chart.data
