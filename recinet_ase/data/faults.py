"""Labels of published datasets that are known to be wrong.

They are kept out of training, where a network would learn them (bcc sodium with a gap of
3.6 eV), and left in validation and test, whose official figures they are part of.
"""

from __future__ import annotations

JARVIS_MBJ_GAPS = frozenset(
    "JVASP-12398 JVASP-8090 JVASP-22564 JVASP-59082 JVASP-42934 JVASP-59181 JVASP-102856 "
    "JVASP-102082 JVASP-12650 JVASP-33292 JVASP-25114 JVASP-25412 JVASP-21204 JVASP-14144 "
    "JVASP-49210 JVASP-25140 JVASP-14608 JVASP-25386 JVASP-25383 JVASP-12772 JVASP-29622 "
    "JVASP-14813 JVASP-25390 JVASP-21207 JVASP-58863 JVASP-78544".split()
)
"""mBJ gaps of JARVIS-DFT 2021 that no crystal has: more than 6 eV above the OptB88vdW gap of
the same crystal (real corrections end near 5.5 eV, in solid argon and hydrogen; here they are
up to 26.5), or a gap in an elemental alkali metal (12 to 24 eV in K, Na, Rb)."""
