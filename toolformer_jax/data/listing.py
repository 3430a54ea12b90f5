"""The table of all that can be fetched."""

import tabulate

from toolformer_jax.data.asset_sources import HubModel
from toolformer_jax.data.benchmarks import BENCHMARKS
from toolformer_jax.data.catalogue import CATALOGUE


def catalogue_table() -> str:
  """Returns a table with the name, kind, size, licence, check and address of everything."""
  rows: list[tuple[str, ...]] = [
    (asset.name, asset.kind, _size(asset.source.megabytes), asset.licence or 'not stated',
     'by the hub' if isinstance(asset.source, HubModel) or not asset.sha256 else 'sha256',
     asset.source.address)
    for asset in CATALOGUE.values()
  ]
  for benchmark in BENCHMARKS.values():
    known = sum(bool(file.sha256) for file in benchmark.files)
    check = 'sha256' if known == len(benchmark.files) else 'sha256 unknown'
    more = f' and {len(benchmark.files) - 1} more' if len(benchmark.files) > 1 else ''
    rows.append((benchmark.name, 'benchmark', _size(benchmark.megabytes), benchmark.licence, check,
                 benchmark.files[0].address + more))
  return tabulate.tabulate(rows, ('name', 'kind', 'size', 'licence', 'checked', 'address'))


def _size(megabytes: float) -> str:
  if not megabytes:
    return 'not known'
  return f'{megabytes / 1000:.1f} GB' if megabytes >= 1000 else f'{megabytes:g} MB'
