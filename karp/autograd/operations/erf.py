"""The error function on arrays, which NumPy does not have.

erfc(x) = t exp(-x^2) P(t) for x >= 0 with t = 2 / (2 + x), where P is a Chebyshev series. Its coefficients were
computed for karp with 40 digits (mpmath) at the 64 Chebyshev nodes; 26 of them leave a relative error of 4e-15.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_COEFFICIENTS = (
    1.1540674772329393772, 0.35543692127049848731, 0.06509515882878652455, 0.0036711423958366391659,
    -0.0011128447433526324969, -0.00016075829915378079758, 0.000032780315741731370605, 5.4424416455050160333e-6,
    -1.5154665553171481622e-6, -1.4297608181169864917e-7, 8.234608827419493433e-8, -1.2962846852306562536e-9,
    -4.1547216310151983042e-9, 6.3470582783628111814e-10, 1.4320822712256223707e-10, -6.1603901052045855418e-11,
    2.0612138554721696306e-12, 3.571493148847704445e-12, -8.5864228432517964757e-13, -6.145600213790630554e-14,
    7.4187257485966170573e-14, -1.2895042755032325615e-14, -2.3587263857106323568e-15, 1.5729349381685911397e-15,
    -2.2782966239546465174e-16, -6.3123304507564298108e-17,
)


def erf(x: Any) -> Any:
    """Return the error function of each element, in the dtype of `x`.

    >>> float(erf(np.float64(0.5)))
    0.5204998778130465
    """
    size = np.abs(x)
    t = 2.0 / (2.0 + size)
    double = 4.0 * t - 2.0
    last = before = np.zeros_like(t)
    for coefficient in _COEFFICIENTS[:0:-1]:  # Clenshaw's recurrence
        last, before = double * last - before + coefficient, last
    series = 0.5 * (double * last + _COEFFICIENTS[0]) - before
    return np.copysign(1.0 - t * np.exp(-size * size) * series, x)
