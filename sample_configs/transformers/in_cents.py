"""Amounts as whole cents: the column changes its name and its type."""


@transformer
def in_cents(df, stream, **kwargs):
    column = {"orders": "total", "payments": "amount"}[stream]
    df[f"{column}_cents"] = (df[column].astype("float64") * 100).round().astype("int64")
    return df.drop(columns=[column])
