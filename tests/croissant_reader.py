"""A dataset folder as a stranger's program reads its croissant.json."""

import logging

import pyarrow.parquet as pq

__all__ = ["parquet_rows", "read"]


def _plain(value):
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if hasattr(value, "getpixel"):
        return value.convert("RGBA").tobytes()
    return value.decode() if isinstance(value, bytes) else value


def read(folder):
    """(errors and warnings, metadata, record set → rows) by mlcroissant."""
    import mlcroissant

    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("absl").addHandler(handler)
    try:
        described = mlcroissant.Dataset(jsonld=folder / "croissant.json")
        names = [each.id for each in described.metadata.record_sets]
        records = {name: [_row(name, record) for record in described.records(name)] for name in names}
    finally:
        logging.getLogger("absl").removeHandler(handler)
    issues = described.metadata.ctx.issues
    return [*issues.errors, *issues.warnings, *messages], described.metadata, records


def _row(name, record):
    return {key.removeprefix(f"{name}/"): _plain(value) for key, value in record.items()}


def parquet_rows(folder):
    """Record set → rows, from the Parquet files themselves."""
    import io

    import PIL.Image

    found = {}
    for path in sorted(folder.glob("*/*.parquet")):
        split, number, _, count = path.stem.split("-")
        name = f"{path.parent.name}/{split}" + (f"/{number}" if int(count) > 1 else "")
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            for key, value in row.items():
                if isinstance(value, dict):
                    row[key] = _plain(PIL.Image.open(io.BytesIO(value["bytes"])))
        found[name] = rows
    return found
