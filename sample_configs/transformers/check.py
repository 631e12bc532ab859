"""A check that fails, so that the tour has a failure to show."""


@transformer
def no_open_orders(df):
    open_orders = int((df["status"] == "open").sum())
    if open_orders:
        raise ValueError(f"{open_orders} orders are still open")
    return df
