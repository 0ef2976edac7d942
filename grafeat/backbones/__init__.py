"""Frozen backbones: any module behind one call that gives feature grids, and where its weights come from.

`backbone` is what is called; `taps` finds where a module's map is, `preparation` brings pictures to it, `fingerprint`
tells backbones apart by all that they hold but the code of `installed` packages. `zoo` loads them by name, from
`bundled` weights, hubs (`sources`) or files (`weights`); `narrow` trains small ones, on pictures that `augment` varies.
"""
