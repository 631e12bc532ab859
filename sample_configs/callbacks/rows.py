"""What the parent handed on: as the first positional parameter, or under `__input`."""


@callback("success")
def by_position(df, parent_block_uuid, stream, **kwargs):
    print(f"{parent_block_uuid} handed on {len(df)} records of {stream}: {', '.join(df.columns)}")


@callback("success")
def by_input(**kwargs):
    for block, df in kwargs["__input"].items():
        print(f"{block}: newest record {df['created_at'].max()}")
