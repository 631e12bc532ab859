"""SQL that converts column values to the texts of `arrow.text`, so that a column that becomes text has one form."""

from __future__ import annotations


def double_text(name: str, plain: str) -> str:
    """Write the text of a float: `1.5`, `0.000001`, `1.5e+10`, `1e-7`, `nan`, `-inf`.

    Args:
        name: the column, quoted.
        plain: decimal type that holds values below 1e-4 with all digits.
    """
    written, size = f"cast({name} as varchar)", f"abs({name})"
    sign = f"case when {name} < 0 then '-' else '' end"
    digits = f"replace(cast({size} as varchar), '.', '')"
    # Some systems write `1.0`, others `1`.
    fraction = f"rtrim(rtrim('.' || substr({digits}, 2), '0'), '.')"
    power = f"length(split_part(cast({size} as varchar), '.', 1)) - 1"
    return (
        f"case when {written} like '%e+0_' and {size} < 1e10 then cast(cast({written} as {plain}) as varchar) "
        f"when {name} = 0 or {size} between 1e-4 and 9999999999.999998 or {size} < 1e-6 or {size} >= 1e16 "
        f"or {written} like '%e+%' "
        rf"then replace(regexp_replace({written}, '\.0$', ''), 'e-0', 'e-') "
        f"when {size} < 1e-4 then rtrim(cast(cast({written} as {plain}) as varchar), '0') "
        f"else {sign} || left({digits}, 1) || {fraction} || 'e+' || cast({power} as varchar) end"
    )


def float_text(name: str, plain: str) -> str:
    """Write the text of a float that may be NaN or infinite; see `double_text`."""
    written = f"lower(cast({name} as varchar))"
    return (
        f"case {written} when 'nan' then 'nan' when 'infinity' then 'inf' when '-infinity' then '-inf' "
        f"when 'inf' then 'inf' when '-inf' then '-inf' else {double_text(name, plain)} end"
    )


def time_text(name: str) -> str:
    """Write the text of a time with microseconds: six decimal places, as in `10:00:00.500000`."""
    written = f"cast({name} as varchar)"
    point = f"case when {written} like '%.%' then '' else '.' end"
    return f"rpad({written} || {point}, 15, '0')"


__all__ = ["float_text", "time_text"]
