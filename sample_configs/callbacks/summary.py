"""Build a summary table once all streams are loaded.

`is_last_block_run` is true for exactly one stream of a run. By then every connection of the run is closed, so this
callback may open the DuckDB file itself. If any stream failed there is nothing to summarize.
"""

from pathlib import Path

SUMMARY = """
create or replace table revenue_by_country as
select c.country, count(distinct o.id) as orders, sum(p.amount) as revenue
from payments p
join orders o on o.id = p.order_id
join dim_customers c on c.id = o.customer_id
group by c.country
order by revenue desc
"""


@callback("success", fetch_inputs=False)
def build_summary(is_last_block_run, warehouse, pipeline_run, **kwargs):
    if not is_last_block_run or pipeline_run.status != "success":
        return
    import duckdb

    with duckdb.connect(str(Path(__file__).parent.parent / warehouse)) as connection:
        connection.execute(SUMMARY)
        for country, orders, revenue in connection.execute("from revenue_by_country").fetchall():
            print(f"{country}: {orders} orders, {revenue} EUR")
