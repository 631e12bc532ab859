"""One large table out of MariaDB, into PostgreSQL."""

from __future__ import annotations

from importlib.util import find_spec

from tests import services
from tests.benchmarks.bench import Bench, Figure, figures, postgres, single_figure
from tests.benchmarks.measure import Usage, alternate

#: The columns of `bench.COLUMNS` as MariaDB has them.
_COLUMNS = """id bigint primary key, customer_id int, amount_cents bigint, price decimal(12,2), weight double,
  is_paid tinyint(1), created_at timestamp null, due_on date, status varchar(20), description text, note text,
  extra json"""

#: The same kinds of values as `bench.RECORDS`; the JSON is spelled as `jsonb` shows it.
_RECORDS = r"""select seq, (seq * 7919) % 100000, seq * 31 % 5000000, (seq % 1000000) / 100.0, sqrt(seq), seq % 3 = 0,
  timestamp '2024-01-01 00:00:00' + interval floor(seq * 37.5) % 60000000 second,
  date '2020-01-01' + interval (seq % 2000) day, elt(1 + seq % 4, 'new', 'paid', 'shipped', 'returned'),
  concat('Order no. ', seq, ': "fragile" 📦, it''s to be left', char(10), 'at the door, thanks… ', md5(seq)),
  case when seq % 10 <> 0 then concat('note ', md5(seq + 1), repeat('x', seq % 20)) end,
  concat('{"tags": [', seq % 5, ', ', seq % 7, '], "items": ', seq % 9, ', "channel": "',
    elt(1 + seq % 3, 'web', 'app', 'shop'), '"}')"""

#: A record as one text, the same one in both systems.
_TEXTS = {
    "mysql": "concat_ws('|', id, customer_id, amount_cents, price, weight, is_paid, "
    "date_format(created_at, '%Y-%m-%d %H:%i:%s'), due_on, status, description, coalesce(note, '~'), extra)",
    "postgres": "concat_ws('|', id, customer_id, amount_cents, price, weight, is_paid::int, "
    "to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'), due_on, status, description, "
    "coalesce(note, '~'), extra)",
}


def mariadb_to_postgres(bench: Bench) -> list[Figure]:
    """A table with a primary key; the limit is connectorx read straight into ADBC, without that key.

    Without connectorx (`pip install --group bench`) there is no limit to compare with.
    """
    destination = bench.database()
    with services.fresh_mariadb_database() as source:
        with services.connect_mariadb(source) as connection, connection.cursor() as cursor:
            cursor.execute("set time_zone = '+00:00'")
            cursor.execute(f"create table orders ({_COLUMNS}) character set utf8mb4")
            cursor.execute(f"insert into orders {_RECORDS} from seq_1_to_{bench.rows}")
            cursor.execute(
                "select count(*), sum(cast(conv(substr(md5(" + _TEXTS["mysql"] + "), 1, 15), 16, 10) as unsigned)) "
                "from orders"
            )
            expected = cursor.fetchone()
            connection.commit()
            cursor.execute("analyze table orders")
            database = source.rpartition("/")[2]
        reading = {"connector": "mariadb", "config": {"url": source}}
        streams = [{"stream": f"{database}.orders", "destination_table": "orders"}]
        pipeline = bench.pipeline("mariadb", reading, postgres(destination), streams)

        def connectorx() -> Usage:
            bench.execute(destination, "drop table if exists bare")
            return bench.run(bench.program("connectorx_to_adbc", source, "orders", destination, "bare"))

        cases = {"syncblocks": bench.sync(pipeline)}
        if find_spec("connectorx") is not None:
            cases = {"connectorx to adbc": connectorx, **cases}
        taken = alternate(cases, bench.repeat)
    sums = f"select count(*), sum(('x' || substr(md5({_TEXTS['postgres']}), 1, 15))::bit(60)::bigint) from orders"
    assert list(bench.execute(destination, sums)[0]) == list(expected)
    if len(cases) == 1:
        return [single_figure("mariadb to postgres", "syncblocks", bench.rows, taken["syncblocks"])]
    assert bench.execute(destination, "select count(*) from bare")[0][0] == bench.rows
    return figures("mariadb to postgres", bench.rows, taken, limit="connectorx to adbc", least=0.8)


__all__ = ["mariadb_to_postgres"]
