//! Figures of shiplane's parts (criterion, under `benches/`) and the reference programs that the
//! whole-program comparison runs beside it (`src/bin/`).
