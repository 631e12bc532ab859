"""Lower-case the addresses, drop a column, add one from a runtime variable."""


@transformer
def tidy(df, region, **kwargs):
    df["email"] = df["email"].str.lower()
    df["region"] = region
    return df.drop(columns=["note"])
