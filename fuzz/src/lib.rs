//! Fuzz targets live in `fuzz_targets/`; this library holds what they share.
