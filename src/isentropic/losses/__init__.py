"""The losses: entropies in, one scalar and its named parts out.

- ``DebiasingLoss``  debiasing_loss.py  only the gap between the groups
- ``GEELoss``        gee_loss.py        mean entropy plus ``lambda`` times the squared gap, to compare
"""

from isentropic.losses.debiasing_loss import DebiasingLoss
from isentropic.losses.gee_loss import GEELoss

__all__ = ["DebiasingLoss", "GEELoss"]
